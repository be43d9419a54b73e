package netsim

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestProfiles(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range Profiles() {
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if p.Source == "" || seen[p.Name] {
			t.Errorf("%s: no source, or twice", p.Name)
		}
		seen[p.Name] = true
		got, err := ParseProfile(p.Name)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: parsed as %+v, %v", p.Name, got, err)
		}
	}
	for _, name := range []string{"fibre", "cable", "dsl", "lte", "lte-train", "3g", "wifi-far", "satellite", "hotel"} {
		if !seen[name] {
			t.Errorf("no profile %s", name)
		}
	}
}

func TestParseProfile(t *testing.T) {
	both := func(l Link) Path { return Path{Up: l, Down: l} }
	for _, tt := range []struct {
		text string
		want Path
	}{
		{"rate=8M", both(Link{Rate: 8e6})},
		{"rate=1.5G, delay=20ms", both(Link{Rate: 15e8, Delay: 20 * ms})},
		{"up.rate=700k,down.rate=8000", Path{Up: Link{Rate: 7e5}, Down: Link{Rate: 8000}}},
		{"rate=4M-30M/500ms", both(Link{Rate: 30e6, RateLow: 4e6, RateEvery: 500 * ms})},
		{"rate=4M-30M/500ms,rate=9M", both(Link{Rate: 9e6})},
		{"jitter=5ms", both(Link{Jitter: 5 * ms})},
		{"jitter=5ms/50ms", both(Link{Jitter: 5 * ms, JitterTime: 50 * ms})},
		{"queue=100ms", both(Link{QueueTime: 100 * ms})},
		{"queue=100ms,queue=65536", both(Link{Queue: 65536})},
		{"loss=0.5%", both(Link{Loss: 0.005})},
		{"loss=0.25", both(Link{Loss: 0.25})},
		{"burst=1%/25%", both(Link{Burst: Burst{Enter: 0.01, Leave: 0.25, LossBad: 1}})},
		{"burst=1%/25%/50%/0.5%", both(Link{Burst: Burst{0.01, 0.25, 0.005, 0.5}})},
		{"reorder=1%/10ms", both(Link{Reorder: 0.01, ReorderBy: 10 * ms})},
		{"up.outage=5s/300ms", Path{Up: Link{Outages: Outages{Every: 5 * time.Second, Shortest: 300 * ms, Longest: 300 * ms}}}},
		{"down.outage=20s/900ms-1.5s/lose", Path{Down: Link{Outages: Outages{Every: 20 * time.Second, Shortest: 900 * ms, Longest: 1500 * ms, Lose: true}}}},
		{"udp=off,rebind=30s", Path{BlockUDP: true, RebindEvery: 30 * time.Second}},
	} {
		got, err := ParseProfile(tt.text)
		tt.want.Name, tt.want.Source = tt.text, "as given"
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
	}
	p, err := ParseProfile("hotel,udp=on,up.loss=1%")
	if err != nil || p.BlockUDP || p.Up.Loss != 0.01 || p.Down.Loss != 0 || p.Down.Rate != 20e6 {
		t.Errorf("a changed profile: %+v, %v", p, err)
	}
}

func TestParseProfileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "there is no profile",
		"ltee":                                   "lte-train",
		"lte,fibre":                              "key=value",
		"speed=1M":                               "no such key",
		"rate=fast":                              "not a rate",
		"rate=-1":                                "not a rate",
		"rate=1000G":                             "not a rate",
		"rate=NaN":                               "not a rate",
		"rate=1":                                 "must be 0",
		"rate=1M-2M":                             "missing",
		"rate=2M-1M/1s":                          "lowest rate",
		"rate=1M/1s":                             "too many",
		"delay=5":                                "not a time",
		"delay=-5ms":                             "must be between",
		"loss=2":                                 "probability",
		"loss=x":                                 "not a share",
		"burst=1%":                               "missing",
		"burst=1%/0":                             "never ends",
		"burst=1%/1%/1%/1%/1%":                   "too many",
		"queue=x":                                "not a time",
		"queue=-1":                               "queue is",
		"outage=5s":                              "missing",
		"outage=5s/300ms/drop":                   "lose",
		"outage=5s/2s-1s":                        "last from",
		"udp=maybe":                              "on or off",
		"rebind=x":                               "not a time",
		"rebind=1ms":                             "10ms",
		"up.down.rate=1M":                        "no such key",
		"lte," + strings.Repeat("x", 500) + "=1": "no such key",
	} {
		if _, err := ParseProfile(text); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
}

func FuzzParseProfile(f *testing.F) {
	for _, p := range Profiles() {
		f.Add(p.Name)
	}
	for _, s := range []string{
		"lte,loss=0.5%,up.rate=4M", "rate=4M-30M/500ms,jitter=5ms/50ms,queue=64000", "burst=1%/25%/50%/0.1%,reorder=1%/10ms",
		"up.outage=5s/300ms-1s/lose,udp=off,rebind=30s", "rate=8000,outage=10ms/1m", "rate=1e9", "loss=1e-9,delay=1h",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParseProfile(text)
		if err != nil {
			return
		}
		if p.Name != text {
			t.Fatalf("named %q", p.Name)
		}
		for _, cfg := range []Link{p.Up, p.Down} {
			l := newLink(cfg, 1, 1, p.Up.Delay+p.Down.Delay)
			for now := int64(0); now < int64(200*ms); now += int64(ms) {
				if at, v := l.packet(now, 1500); (v == passes || v == overtaken) && at < now {
					t.Fatalf("packet at %d arrives at %d", now, at)
				}
				if at := l.segment(now, 40); at < now {
					t.Fatalf("segment at %d arrives at %d", now, at)
				}
			}
		}
	})
}
