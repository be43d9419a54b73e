package netsim

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	kbit = 1000
	mbit = 1000 * kbit
	ms   = time.Millisecond
)

// webPageTest are the connectivity presets that WebPageTest ships.
const webPageTest = "WebPageTest's connectivity.ini.sample"

// Profiles returns the named paths. The far end is taken to be near the access
// network: a profile has the round trip of its access alone. Queues, jitter and
// burst loss are our own choice throughout, and so is every figure that Source
// does not name.
func Profiles() []Path {
	return []Path{
		{
			Name: "fibre",
			Source: "200/200 Mbit/s: the mean advertised download rate in FCC, Eleventh Measuring Broadband America (193.9), rounded, both ways by our choice; " +
				"4 ms round trip: preset FIOS of " + webPageTest,
			Up:   Link{Rate: 200 * mbit, Delay: 2 * ms, QueueTime: 50 * ms},
			Down: Link{Rate: 200 * mbit, Delay: 2 * ms, QueueTime: 50 * ms},
		}, {
			Name:   "cable",
			Source: "100/20 Mbit/s: FCC's broadband benchmark since 2024; 28 ms round trip: preset Cable of " + webPageTest,
			Up:     Link{Rate: 20 * mbit, Delay: 14 * ms, Jitter: 2 * ms},
			Down:   Link{Rate: 100 * mbit, Delay: 14 * ms, Jitter: 1 * ms, QueueTime: 100 * ms},
		}, {
			Name:   "dsl",
			Source: "25/3 Mbit/s: FCC's broadband benchmark of 2015; 50 ms round trip: preset DSL of " + webPageTest,
			Up:     Link{Rate: 3 * mbit, Delay: 25 * ms, Jitter: 1 * ms},
			Down:   Link{Rate: 25 * mbit, Delay: 25 * ms, Jitter: 1 * ms, QueueTime: 100 * ms},
		}, {
			Name:   "lte",
			Source: "12/12 Mbit/s, 70 ms round trip: preset LTE of " + webPageTest,
			Up:     Link{Rate: 12 * mbit, Delay: 35 * ms, Jitter: 5 * ms, QueueTime: 500 * ms},
			Down:   Link{Rate: 12 * mbit, Delay: 35 * ms, Jitter: 5 * ms, QueueTime: 500 * ms},
		}, {
			Name: "lte-train",
			Source: "at most 17 Mbit/s, 5.6 on average, gaps of 0.9 to 1.5 s: LTE drives of the mahimahi traces (averages 4.6 to 17 Mbit/s), recorded for Winstein, Sivaraman, " +
				"Balakrishnan, \"Stochastic Forecasts Achieve High Throughput and Low Delay over Cellular Networks\", NSDI 2013; 70 ms round trip: preset LTE of " + webPageTest +
				"; lowest rates, uplink and how often: our choice",
			Up: Link{Rate: 8 * mbit, RateLow: 500 * kbit, RateEvery: 500 * ms, Delay: 35 * ms, Jitter: 8 * ms, QueueTime: time.Second,
				Outages: Outages{Every: 20 * time.Second, Shortest: 900 * ms, Longest: 1500 * ms}},
			Down: Link{Rate: 17 * mbit, RateLow: 1 * mbit, RateEvery: 500 * ms, Delay: 35 * ms, Jitter: 8 * ms, QueueTime: time.Second,
				Outages: Outages{Every: 20 * time.Second, Shortest: 900 * ms, Longest: 1500 * ms}},
		}, {
			Name:   "slow-4g",
			Source: "1.6/0.75 Mbit/s, 150 ms round trip: Lighthouse's mobileSlow4G, its standard for mobile",
			Up:     Link{Rate: 750 * kbit, Delay: 75 * ms, QueueTime: 500 * ms},
			Down:   Link{Rate: 1600 * kbit, Delay: 75 * ms, QueueTime: 500 * ms},
		}, {
			Name:   "3g",
			Source: "0.7 Mbit/s both ways, 300 ms round trip: Lighthouse's mobileRegular3G, the figures of Chromium's Lantern",
			Up:     Link{Rate: 700 * kbit, Delay: 150 * ms, Jitter: 10 * ms, QueueTime: time.Second},
			Down:   Link{Rate: 700 * kbit, Delay: 150 * ms, Jitter: 10 * ms, QueueTime: time.Second},
		}, {
			Name: "wifi-far",
			Source: "our choice: a room too far from the access point, 2 to 20 Mbit/s, about 1% lost in bursts of 4 packets and more. Bursts by Gilbert and Elliott " +
				"are a simplification: measured ones have longer tails (Carvalho, Angeja, Navarro, IEEE Trans. Consumer Electronics 2005)",
			Up: Link{Rate: 20 * mbit, RateLow: 2 * mbit, RateEvery: 200 * ms, Delay: 5 * ms, Jitter: 10 * ms,
				Burst: Burst{Enter: 0.005, Leave: 0.25, LossBad: 0.5}},
			Down: Link{Rate: 20 * mbit, RateLow: 2 * mbit, RateEvery: 200 * ms, Delay: 5 * ms, Jitter: 10 * ms,
				Burst: Burst{Enter: 0.005, Leave: 0.25, LossBad: 0.5}},
		}, {
			Name: "satellite",
			Source: "geostationary, 100/10 Mbit/s, 600 ms round trip: the SatCom subscription and least latency in Michel, Trevisan, Giordano, Bonaventure, " +
				"\"A First Look at Starlink Performance\", IMC 2022; 0.1% loss: our choice",
			Up:   Link{Rate: 10 * mbit, Delay: 300 * ms, Jitter: 5 * ms, Loss: 0.001},
			Down: Link{Rate: 100 * mbit, Delay: 300 * ms, Jitter: 5 * ms, Loss: 0.001},
		}, {
			Name:     "hotel",
			Source:   "our choice: UDP blocked, 20/10 Mbit/s, 30 ms round trip",
			BlockUDP: true,
			Up:       Link{Rate: 10 * mbit, Delay: 15 * ms, Jitter: 5 * ms},
			Down:     Link{Rate: 20 * mbit, Delay: 15 * ms, Jitter: 5 * ms},
		},
	}
}

// ParseProfile returns the path that a text such as "lte" or
// "fibre,up.loss=1%,up.outage=5s/300ms" names: a profile, and changes to it,
// separated by commas. Without a profile, changes apply to a path that passes
// everything at once. A change counts for both directions, or for one if its key
// begins with "up." or "down.":
//
//	rate=8M               bit/s, with k, M or G; 0 is unlimited
//	rate=4M-30M/500ms     drawn anew from a range every so often
//	delay=20ms            one way
//	jitter=5ms  jitter=5ms/50ms   with the time over which it stays alike
//	queue=100ms queue=65536       as time or in bytes
//	loss=0.5%
//	burst=1%/25%          enter and leave; loses all when bad
//	burst=1%/25%/50%/0.1% and the loss when bad and when good
//	reorder=1%/10ms       how many, how much later
//	outage=20s/900ms-1.5s mean time between, and length; /lose at the end
//	udp=off               of the path: block UDP
//	rebind=30s            of the path: change the address so often
//
// Traces and fixed outages have no text; set them on the Path. The result is
// valid for New.
func ParseProfile(text string) (Path, error) {
	path := Path{Source: "as given"}
	for i, item := range strings.Split(text, ",") {
		key, value, change := strings.Cut(strings.TrimSpace(item), "=")
		var err error
		switch {
		case change:
			err = path.set(key, value)
		case i == 0:
			path, err = profile(key)
		default:
			err = fmt.Errorf("%.40q is not a change of the form key=value", item)
		}
		if err != nil {
			return Path{}, fmt.Errorf("profile %.80q: %w", text, err)
		}
	}
	path.Name = text
	if err := path.check(); err != nil {
		return Path{}, fmt.Errorf("profile %.80q: %w", text, err)
	}
	return path, nil
}

func profile(name string) (Path, error) {
	var known []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		known = append(known, p.Name)
	}
	return Path{}, fmt.Errorf("there is no profile %.40q; there are %s", name, strings.Join(known, ", "))
}

func (p *Path) set(key, value string) error {
	switch key {
	case "udp":
		if p.BlockUDP = value == "off"; !p.BlockUDP && value != "on" {
			return fmt.Errorf("udp is %.40q, must be on or off", value)
		}
		return nil
	case "rebind":
		f := &fields{}
		p.RebindEvery = f.time(value)
		return f.err
	}
	links := []*Link{&p.Up, &p.Down}
	if k, ok := strings.CutPrefix(key, "up."); ok {
		key, links = k, links[:1]
	} else if k, ok := strings.CutPrefix(key, "down."); ok {
		key, links = k, links[1:]
	}
	for _, l := range links {
		if err := l.set(key, value); err != nil {
			return fmt.Errorf("%.40s: %w", key, err)
		}
	}
	return nil
}

func (l *Link) set(key, value string) error {
	f := &fields{rest: value, more: true}
	switch key {
	case "rate":
		low, high, ranged := strings.Cut(f.take(), "-")
		l.RateLow, l.RateEvery = 0, 0
		if l.Rate = f.bits(low); ranged {
			l.RateLow, l.Rate, l.RateEvery = l.Rate, f.bits(high), f.time(f.take())
		}
	case "delay":
		l.Delay = f.time(f.take())
	case "jitter":
		if l.Jitter, l.JitterTime = f.time(f.take()), 0; f.more {
			l.JitterTime = f.time(f.take())
		}
	case "queue":
		l.Queue, l.QueueTime = 0, 0
		if n, err := strconv.Atoi(value); err == nil {
			l.Queue, f.more = n, false
		} else {
			l.QueueTime = f.time(f.take())
		}
	case "loss":
		l.Loss = f.share(f.take())
	case "burst":
		l.Burst = Burst{Enter: f.share(f.take()), Leave: f.share(f.take()), LossBad: 1}
		if f.more {
			l.Burst.LossBad = f.share(f.take())
		}
		if f.more {
			l.Burst.LossGood = f.share(f.take())
		}
	case "reorder":
		l.Reorder, l.ReorderBy = f.share(f.take()), f.time(f.take())
	case "outage":
		o := Outages{Every: f.time(f.take())}
		short, long, ranged := strings.Cut(f.take(), "-")
		if !ranged {
			long = short
		}
		o.Shortest, o.Longest = f.time(short), f.time(long)
		if f.more {
			if o.Lose = f.take() == "lose"; !o.Lose {
				f.fail("%.40q does not end with /lose", value)
			}
		}
		l.Outages = o
	default:
		return fmt.Errorf("there is no such key; there are rate, delay, jitter, queue, loss, burst, reorder, outage, udp and rebind")
	}
	if f.more {
		f.fail("%.40q has too many parts", value)
	}
	return f.err
}

// fields reads a value part by part, and keeps the first error.
type fields struct {
	rest string
	more bool // a part is left
	err  error
}

func (f *fields) take() (part string) {
	if !f.more {
		f.fail("a part is missing, they are separated by /")
	}
	part, f.rest, f.more = strings.Cut(f.rest, "/")
	return part
}

func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

func (f *fields) time(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		f.fail("%.40q is not a time such as 20ms or 1.5s", s)
	}
	return d
}

// share reads a probability as 0.005 or 0.5%.
func (f *fields) share(s string) float64 {
	number, percent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(number, 64)
	if err != nil || !(x >= 0) {
		f.fail("%.40q is not a share such as 0.5%% or 0.005", s)
		return 0
	}
	if percent {
		x /= 100
	}
	return x
}

// bits reads a rate as 8M, 700k or 1G, in bit/s.
func (f *fields) bits(s string) int64 {
	unit := 1.0
	for suffix, u := range map[string]float64{"k": kbit, "M": mbit, "G": 1000 * mbit} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, u
			break
		}
	}
	x, err := strconv.ParseFloat(s, 64)
	if x *= unit; err != nil || !(x >= 0 && x <= maxRate) {
		f.fail("%.40q is not a rate such as 8M, 700k or 1G, of at most %dG bit/s", s, int64(maxRate/1e9))
		return 0
	}
	return int64(math.Round(x))
}
