//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/netns"
	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/transport/netsim"
)

// By hand: go test -tags e2e -run TestGoodput -timeout 3h -v ./loadtest/e2e
// -goodput 20s -repeat 3 measures every cell of the table, and -run
// 'TestGoodput/^1%_loss$/automatic' some.
var (
	goodputTime   = flag.Duration("goodput", 0, "measure the goodput of each way over each line for so long, instead of one quickly")
	goodputRepeat = flag.Int("repeat", 1, "runs of each cell of the table of goodputs, whose median it shows")
)

// goodputWarmUp passes before bytes count: slow start, and the time in which
// carriers are added.
const goodputWarmUp = 5 * time.Second

// lossyLine is a row of the table: what is lost on the device's hop, each way.
type lossyLine struct {
	name  string
	loss  float64
	burst netsim.Burst
}

var lossyLines = []lossyLine{
	{name: "no loss"},
	{name: "0.1% loss", loss: 0.001},
	{name: "1% loss", loss: 0.01},
	{name: "3% loss", loss: 0.03},
	// 8 packets on average, and 1% of all.
	{name: "1% loss in bursts", burst: netsim.Burst{Enter: 1.0 / 8 / 99, Leave: 1.0 / 8, LossBad: 1}},
}

// way is a column of the table: how a download crosses the two hops.
type way struct {
	name     string
	open     []string // further arguments of blindlink open
	cubic    bool     // the relay's host has no BBR
	noUDP    bool     // the device's network blocks UDP
	plainTCP string   // no relay but a router, and TCP with this congestion control
}

var ways = []way{
	{name: "one carrier", open: []string{"--carriers", "1"}},
	{name: "automatic"},
	{name: "automatic, relay without BBR", cubic: true},
	{name: "one carrier, UDP blocked", open: []string{"--carriers", "1"}, noUDP: true},
	{name: "one carrier, UDP blocked, relay without BBR", open: []string{"--carriers", "1"}, noUDP: true, cubic: true},
	{name: "kernel TCP, cubic", plainTCP: "cubic"},
	{name: "kernel TCP, BBR", plainTCP: "bbr"},
}

// TestGoodput downloads over two emulated hops, and prints what comes per
// second. It judges the bytes, not their number.
func TestGoodput(t *testing.T) {
	if *goodputTime == 0 {
		at := slices.IndexFunc(ways, func(w way) bool { return w.name == "automatic" })
		m := measure(t, lossyLines[2], ways[at], 1, time.Second, 4*time.Second)
		t.Logf("%s, %s: %v", lossyLines[2].name, ways[at].name, m)
		return
	}
	results := make(map[string][]measured) // by row and column
	for _, line := range lossyLines {
		for _, w := range ways {
			for seed := range *goodputRepeat {
				t.Run(fmt.Sprintf("%s/%s/%d", line.name, w.name, seed+1), func(t *testing.T) {
					m := measure(t, line, w, uint64(seed+1), goodputWarmUp, *goodputTime)
					t.Log(m)
					results[line.name+w.name] = append(results[line.name+w.name], m)
				})
			}
		}
	}
	t.Logf("Mbit/s, median of %d runs of %v after %v\n%s", *goodputRepeat, *goodputTime, goodputWarmUp, goodputTable(results))
}

// goodputTable is in Markdown.
func goodputTable(results map[string][]measured) string {
	var b strings.Builder
	b.WriteString("| on the device's hop |")
	for _, w := range ways {
		b.WriteString(" " + w.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(ways)) + "\n")
	for _, line := range lossyLines {
		b.WriteString("| " + line.name + " |")
		for _, w := range ways {
			of := results[line.name+w.name]
			if len(of) == 0 {
				b.WriteString(" - |")
				continue
			}
			slices.SortFunc(of, func(x, y measured) int { return int(x.bytes - y.bytes) })
			fmt.Fprintf(&b, " %.1f |", of[len(of)/2].rate())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// measured is a download that was measured.
type measured struct {
	bytes int64 // of content, in took
	took  time.Duration
	// The warm-up included: what the device's hop counted towards the device,
	// bytes by UDP and TCP before it lost any, and the congestion control of
	// each TCP connection at its end.
	hop      netsim.LinkStats
	udp, tcp int64
	controls string
	missed   int64 // packets towards the device that the emulator was too slow to take
}

func (m measured) rate() float64 { return float64(m.bytes*8) / m.took.Seconds() / 1e6 }

func (m measured) String() string {
	return fmt.Sprintf("%.1f Mbit/s; %d packets, %d lost, %d found the queue full; %d kB by UDP, %d kB by TCP [%s]; emulator late %v, at worst %v, missed %d",
		m.rate(), m.hop.Packets, m.hop.Lost, m.hop.Dropped, m.udp/1000, m.tcp/1000, m.controls,
		m.hop.Late.Round(10*time.Microsecond), m.hop.LateMax.Round(10*time.Microsecond), m.missed)
}

// hops are a home, a relay and a device, and the emulated lines between them:
//
//	home --- 200 Mbit/s, 40 ms --- relay --- 50 Mbit/s, 40 ms, loss --- device
type hops struct {
	home, relay, device *netns.Namespace
	deviceLine          *netsim.Line
}

const (
	hopDelay  = 20 * time.Millisecond  // one way
	hopQueue  = 100 * time.Millisecond // before each hop's rate
	homeRate  = 200_000_000
	lossyRate = 50_000_000
)

func newHops(t *testing.T, lossy lossyLine, w way, seed uint64) *hops {
	t.Helper()
	h := &hops{}
	namespaces(t, &h.home, &h.relay, &h.device)
	lay := func(a *netns.Namespace, name string, b *netns.Namespace, as string, link netsim.Link, seed uint64) *netsim.Line {
		line, err := netns.JoinEmulated(a, name, b, as, netsim.Config{Path: netsim.Path{Name: name, Up: link, Down: link}, Seed: seed})
		if err != nil {
			unable(t, err)
		}
		t.Cleanup(func() { line.Close() })
		return line
	}
	lay(h.home, "eth0", h.relay, "home", netsim.Link{Rate: homeRate, Delay: hopDelay, QueueTime: hopQueue}, seed)
	h.deviceLine = lay(h.relay, "device", h.device, "eth0", netsim.Link{
		Rate: lossyRate, Delay: hopDelay, QueueTime: hopQueue, Loss: lossy.loss, Burst: lossy.burst,
	}, seed)

	// A route's congestion control counts for every connection over it. One that
	// is locked cannot be changed by a program, not even by root.
	control := func(name string) string {
		if name == "" {
			return ""
		}
		return " congctl lock " + name
	}
	relays := ""
	if w.cubic {
		relays = "cubic"
	}
	must(t, h.home.IP("addr add 10.78.1.2/24 dev eth0", "link set eth0 up",
		"route add default via 10.78.1.1"+control(w.plainTCP)))
	must(t, h.relay.IP("addr add 10.78.1.1/24 dev home", "link set home up",
		"addr add 10.78.2.1/24 dev device", "link set device up",
		"route replace 10.78.2.0/24 dev device src 10.78.2.1"+control(relays)))
	must(t, h.device.IP("addr add 10.78.2.2/24 dev eth0", "link set eth0 up", "route add default via 10.78.2.1"))
	must(t, h.relay.Sysctl("net.ipv4.ip_forward", "1"))
	must(t, h.relay.Nft(`table inet watch {
		counter out_udp {}
		counter out_tcp {}
		chain post {
			type filter hook postrouting priority 0
			oifname "device" meta l4proto udp counter name out_udp
			oifname "device" meta l4proto tcp counter name out_tcp
		}
	}`))
	if w.noUDP {
		must(t, h.relay.Nft(`table inet block {
			chain in {
				type filter hook input priority 0
				iifname "device" meta l4proto udp drop
			}
		}`))
	}
	return h
}

// measure downloads for a while and returns what came after the warm-up.
func measure(t *testing.T, lossy lossyLine, w way, seed uint64, warmUp, d time.Duration) measured {
	t.Helper()
	h := newHops(t, lossy, w, seed)
	film := origin.Film{Seed: seed, Size: 1 << 40} // more than anybody waits for
	url := h.settle(t, w, serveFilm(film))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	transport := &http.Transport{DialContext: h.device.Dial}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	must(t, err)
	res, err := (&http.Client{Transport: transport}).Do(req)
	must(t, err)
	defer res.Body.Close()
	// A stream that stands still fails here and not when the test times out.
	watchdog := time.AfterFunc(warmUp+d+patience, cancel)
	defer watchdog.Stop()

	body := &measuredBody{film: film, body: res.Body}
	must(t, body.read(time.Now().Add(warmUp)))
	begin, before := time.Now(), body.at
	must(t, body.read(begin.Add(d)))
	took, bytes, c := time.Since(begin), body.at-before, counters(t, h.relay)
	return measured{
		bytes: bytes, took: took, hop: h.deviceLine.Stats().Up,
		udp: c["out_udp"], tcp: c["out_tcp"], controls: h.congestionControls(t, w), missed: h.missed(t),
	}
}

// measuredBody is a response that is read and verified.
type measuredBody struct {
	film origin.Film
	body io.Reader
	at   int64
	buf  [64 << 10]byte
}

// read reads until a time.
func (d *measuredBody) read(end time.Time) error {
	for time.Now().Before(end) {
		n, err := d.body.Read(d.buf[:])
		if wrong := d.film.Verify(d.buf[:n], d.at); wrong != nil {
			return wrong
		}
		d.at += int64(n)
		if err != nil {
			return fmt.Errorf("the stream broke after %d bytes: %w", d.at, err)
		}
	}
	return nil
}

// settle serves an origin at home and starts what brings it to the device. It
// returns the URL that the device downloads.
func (h *hops) settle(t *testing.T, w way, o http.Handler) (url string) {
	t.Helper()
	address := "127.0.0.1:8080"
	if w.plainTCP != "" {
		address = "10.78.1.2:8080"
	}
	server := &http.Server{Handler: o}
	l, err := h.home.Listen("tcp", address)
	must(t, err)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	if w.plainTCP != "" {
		return "http://" + address + "/"
	}

	relay := startIn(t, h.relay, "relay", command(context.Background(), t, "blindrelay", "serve", "--state", newState(t),
		"--admit", "open", "--listen", "10.78.2.1:4433", "--listen-tcp", "10.78.2.1:443", "--drain-timeout", "0s"))
	a := agent{state: newState(t)}
	a.process = startIn(t, h.home, "agent", command(context.Background(), t, "blindlink", "share",
		"--to", "http://"+address, "--state", a.state, "--relay", relay.firstLine(t)))
	a.firstLine(t)
	args := append([]string{"open", "--listen", "127.0.0.1:8096", "--state", newState(t)}, w.open...)
	device := startIn(t, h.device, "device", command(context.Background(), t, "blindlink", append(args, a.invite(t))...))
	if line := device.firstLine(t); line != deviceURL {
		t.Fatalf("the device's line is %q, want %s", line, deviceURL)
	}
	return deviceURL
}

// congestionControls names the congestion control of each TCP connection that
// has the lossy hop behind it, and fails the test if it is not the way's.
func (h *hops) congestionControls(t *testing.T, w way) string {
	t.Helper()
	from := h.relay
	if w.plainTCP != "" {
		from = h.home
	}
	text, err := from.Output("", "ss", "-HtinO", "state", "established", "dst", "10.78.2.2")
	must(t, err)
	var names []string
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line) {
			if word == "cubic" || word == "bbr" || word == "reno" {
				names = append(names, word)
				if w.cubic && word != "cubic" || w.plainTCP != "" && word != w.plainTCP {
					t.Errorf("a TCP connection has %s as its congestion control: %s", word, line)
				}
			}
		}
	}
	return strings.Join(names, " ")
}

// missed is how many packets to the device found the queue of the relay's
// interface full, which is before the emulator.
func (h *hops) missed(t *testing.T) int64 {
	t.Helper()
	text, err := h.relay.Output("", "ip", "-json", "-statistics", "link", "show", "dev", "device")
	must(t, err)
	var links []struct {
		Stats64 struct{ TX struct{ Dropped int64 } }
	}
	must(t, json.Unmarshal([]byte(text), &links))
	if len(links) != 1 {
		t.Fatalf("ip shows %d links: %s", len(links), text)
	}
	return links[0].Stats64.TX.Dropped
}
