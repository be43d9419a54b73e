package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/localrelay"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestDoctor examines both sides of a running share, through a real relay.
func TestDoctor(t *testing.T) {
	relay, err := localrelay.Start(localrelay.Config{BufferMemory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	media := httptest.NewServer(http.NotFoundHandler())
	defer media.Close()
	home := newHome(t, "tv")
	away := newAway(t)
	pairWith(t, away, home, relay.At)

	p := start(t, nil, "share", "--relay", relay.At.String(), "--to", media.URL, "--state", home)
	p.stdout.await(t, "reachable: ")
	for _, dir := range []string{home, away} {
		e := doctor(t, dir, 0)
		s := e.Sides[0]
		if !e.Plays || !s.Plays || len(e.Sides) != 1 || len(s.Relays) != 1 {
			t.Fatalf("examination %+v of %+v", e, s)
		}
		r := s.Relays[0]
		if !r.UDP.OK || r.UDP.RTT <= 0 || r.TCP.OK || !strings.Contains(r.TCP.Error, "--listen-tcp") {
			t.Errorf("carriers %+v", r)
		}
		if r.Packets == nil || !r.Packets.OK || r.Moves == nil || !r.Moves.OK {
			t.Errorf("full packets %+v, another port %+v", r.Packets, r.Moves)
		}
		if r.Up == nil || r.Up.Rate <= 0 || r.Down == nil || r.Down.Rate <= 0 {
			t.Errorf("line %v up, %v down", r.Up, r.Down)
		}
		if (s.Origin != nil) != (dir == home) || s.Origin != nil && s.Origin.Answer != "404 Not Found" {
			t.Errorf("media server %+v", s.Origin)
		}
		text := blindlink(t, "", nil, "doctor", "--state", dir).want(t, 0).stdout
		if !strings.Contains(text, "would play") || strings.Count(text, "\n") > 24 || !strings.Contains(text, "connections go on") {
			t.Errorf("screen:\n%s", text)
		}
		t.Logf("\n%s", text)
	}
	if s := (owned{home}).status(t); s.Relays[0].State != "reachable" {
		t.Errorf("the agent was disturbed: %+v", s)
	}

	t.Run("media server down", func(t *testing.T) {
		media.Close()
		if s := doctor(t, home, 1).Sides[0]; !strings.Contains(s.Verdict, "media server") {
			t.Errorf("verdict %q", s.Verdict)
		}
	})
	t.Run("remote access off", func(t *testing.T) {
		(owned{home}).run(t, "off").want(t, 0)
		if s := doctor(t, home, 1).Sides[0]; !strings.Contains(s.Verdict, "blindlink on") || s.Relays[0].Up != nil {
			t.Errorf("verdict %q of %+v", s.Verdict, s.Relays[0])
		}
		if s := doctor(t, away, 1).Sides[0]; !s.Relays[0].UDP.OK || !strings.Contains(s.Verdict, "knows no agent") {
			t.Errorf("verdict %q", s.Verdict)
		}
	})
	t.Run("another key", func(t *testing.T) {
		other := relay.At
		other.Pin[0]++
		dir := newAway(t)
		pairWith(t, dir, newHome(t, "tv"), other)
		s := doctor(t, dir, 1).Sides[0]
		if s.Relays[0].UDP.OK || !strings.Contains(s.Verdict, "not the one behind #") {
			t.Errorf("verdict %q", s.Verdict)
		}
	})
	(owned{home}).run(t, "on").want(t, 0)
	p.stop(t)
	if s := doctor(t, home, 1).Sides[0]; !strings.Contains(s.Verdict, "not running") {
		t.Errorf("verdict %q", s.Verdict)
	}
}

// TestDoctorOverTCP finds a relay that no UDP leads to, and that sends away who
// asks for something.
func TestDoctorOverTCP(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := transporttest.Certificate(t)
	ln := transport.ListenTCP(transport.TCPListenConfig{Socket: socket, Certificate: cert})
	defer ln.Close()
	go func() {
		for {
			sess, err := ln.Accept(t.Context())
			if err != nil {
				return
			}
			for range 2 { // the conversation, then a measurement
				sess.AcceptStream(t.Context())
			}
			sess.Close(wire.CodeDraining, "")
		}
	}()
	s := &side{
		Role: "open", token: true, to: wire.Open{Token: wire.Token{1}},
		known: []wire.Relay{{Addr: socket.Addr().String(), Pin: transport.PinOf(cert.Leaf)}},
	}
	e, err := examine(t.Context(), []*side{s})
	if err != nil || len(s.Relays) != 1 {
		t.Fatalf("%+v of %+v, %v", e, s, err)
	}
	r := s.Relays[0]
	if r.UDP.OK || !strings.Contains(r.UDP.Error, "TCP does what UDP would") || !r.TCP.OK {
		t.Errorf("carriers %+v", r)
	}
	if e.Plays || !strings.Contains(s.Verdict, "is being emptied") {
		t.Errorf("verdict %q", s.Verdict)
	}
}

// pairWith gives a device's state what pairing would.
func pairWith(t *testing.T, away, home string, relay wire.Relay) {
	t.Helper()
	h, err := pair.OpenHome(home)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.SetRelays([]wire.Relay{relay}); err != nil {
		t.Fatal(err)
	}
	a, err := pair.OpenAway(away)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Add(pair.Server{
		Name: "attic", Pin: h.Pin(), Route: h.Route(), Device: "tv", Token: h.Token(h.Devices()[0].Pin),
		Relays: []wire.Relay{relay}, Paired: time.Now(),
	}); err != nil {
		t.Fatal(err)
	}
}

func doctor(t *testing.T, dir string, code int) (e examination) {
	t.Helper()
	r := blindlink(t, "", nil, "doctor", "--json", "--state", dir).want(t, code)
	if err := json.Unmarshal([]byte(r.stdout), &e); err != nil || len(e.Sides) == 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	if strings.Contains(strings.ToLower(r.stdout), `"token`) || r.stderr != "" {
		t.Errorf("printed: %+v", r)
	}
	return e
}

func TestJudge(t *testing.T) {
	works, fails := carrierReport{OK: true}, carrierReport{Error: "UDP is closed"}
	at := func(up, down float64) relayReport {
		return relayReport{UDP: works, Up: &lineReport{Rate: up}, Down: &lineReport{Rate: down}}
	}
	refused := relayReport{UDP: works, Up: &lineReport{Error: "refused"}, Down: &lineReport{Error: "refused"}}
	for name, c := range map[string]struct {
		side side
		want bool
		word string
	}{
		"a device's line":      {side{Role: "open", token: true, Relays: []relayReport{at(1e6, 10e6)}}, true, "server's line"},
		"a home's line":        {side{Role: "share", token: true, Relays: []relayReport{at(10e6, 1e6)}}, true, "device's line"},
		"a device's slow line": {side{Role: "open", token: true, Relays: []relayReport{at(99e6, 9.9e6)}}, false, "9.9 Mbit/s"},
		"a home's slow line":   {side{Role: "share", token: true, Relays: []relayReport{at(2e6, 99e6)}}, false, "2.0 Mbit/s"},
		"one of two relays":    {side{Role: "open", token: true, Relays: []relayReport{refused, at(1, 20e6)}}, true, "would play"},
		"TCP alone":            {side{Role: "open", token: true, Relays: []relayReport{{UDP: fails, TCP: works, Down: &lineReport{Rate: 20e6}}}}, true, "would play"},
		"nothing reached":      {side{Role: "open", token: true, Relays: []relayReport{{UDP: fails, TCP: fails}}}, false, "UDP is closed"},
		"refused":              {side{Role: "open", token: true, Relays: []relayReport{refused}}, false, "refused"},
		"the agent knows why":  {side{Role: "share", token: true, Agent: []endpoint.RelayStatus{{Error: "not admitted"}}, Relays: []relayReport{refused}}, false, "not admitted"},
		"no device":            {side{Role: "share", Relays: []relayReport{{UDP: works}}}, false, "blindlink invite"},
		"off":                  {side{Role: "share", token: true, Blocked: "off", Relays: []relayReport{at(99e6, 99e6)}}, false, "off"},
		"no such name":         {side{Role: "open", token: true, Lookup: "no such name"}, false, "no such name"},
		"no media server":      {side{Role: "share", token: true, Origin: &originReport{Error: "down"}, Relays: []relayReport{at(99e6, 99e6)}}, false, "media server: down"},
	} {
		if got, why := c.side.judge(); got != c.want || !strings.Contains(why, c.word) {
			t.Errorf("%s: %v, %q", name, got, why)
		}
	}
}

func TestDoctorScreen(t *testing.T) {
	e := examination{
		Sides: []*side{{
			Role: "share", Server: "attic", More: 2, Verdict: "would play",
			Relays: []relayReport{{
				Relay: "r.example:443", Address: "192.0.2.1",
				UDP: carrierReport{OK: true, RTT: 12_340_000}, TCP: carrierReport{Error: "closed"},
				Packets: &pathReport{Error: "smaller ones are used"}, Moves: &pathReport{OK: true},
				Up: &lineReport{Rate: 45.12e6}, Down: &lineReport{Error: "less than 0.8 Mbit/s pass"},
			}},
			Origin: &originReport{Address: "http://127.0.0.1:8096", Answer: "200 OK", After: 3_210_000},
		}},
		Buffers: &buffers{Receive: 212992, Send: buffersWanted, Advice: "small"},
	}
	const want = `share                attic
  relay              r.example:443 (192.0.2.1)
    UDP              works, round trip 12.3ms
    TCP              closed
    MTU              smaller ones are used
    address change   connections go on
    up               45.1 Mbit/s
    down             less than 0.8 Mbit/s pass
  relays             2 more were not examined
  media server       http://127.0.0.1:8096: 200 OK after 3.2ms
socket buffers       receive 208.0 KiB, send 7.0 MiB: small
8 Mbit/s film        attic: would play
`
	var b strings.Builder
	if err := e.print(&b); err != nil || b.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, &b, want)
	}
}

// scriptedMeter answers with what a line of some speed gives.
type scriptedMeter struct {
	perSecond float64
	busy      int   // so many measurements are refused first
	err       error // of every other one
	asked     []int
}

func (m *scriptedMeter) Measure(ctx context.Context, _ bool, bytes int) (float64, error) {
	if m.busy > 0 {
		m.busy--
		return 0, &wire.ResetError{Code: wire.CodeMeasureLimit}
	}
	m.asked = append(m.asked, bytes)
	if m.err != nil {
		return 0, m.err
	}
	select {
	case <-time.After(time.Duration(float64(bytes) / m.perSecond * float64(time.Second))):
		return m.perSecond, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func TestGauge(t *testing.T) {
	for name, c := range map[string]struct {
		meter scriptedMeter
		rate  float64
		word  string // in the error
		asked []int
	}{
		"ordinary":        {scriptedMeter{perSecond: 1e6}, 8e6, "", []int{firstGauge, 1e6}},
		"fast":            {scriptedMeter{perSecond: 1e9}, 8e9, "", []int{firstGauge, lastGauge}},
		"slow":            {scriptedMeter{perSecond: 2e5}, 1.6e6, "", []int{firstGauge, firstGauge}},
		"very slow":       {scriptedMeter{perSecond: 5e4}, 0, "less than 0.8 Mbit/s", []int{firstGauge}},
		"busy for a time": {scriptedMeter{perSecond: 1e6, busy: 3}, 8e6, "", []int{firstGauge, 1e6}},
		"busy":            {scriptedMeter{busy: 1 << 20}, 0, "measure", nil},
		"refused":         {scriptedMeter{err: &wire.ResetError{Code: wire.CodeTokenRefused}}, 0, "ask the owner", []int{firstGauge}},
		"broken":          {scriptedMeter{err: errors.New("broken")}, 0, "broken", []int{firstGauge}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				got := gauge(t.Context(), &c.meter, true)
				if got.Rate != c.rate || (got.Error == "") != (c.word == "") || !strings.Contains(got.Error, c.word) {
					t.Errorf("got %+v", got)
				}
				if !slices.Equal(c.meter.asked, c.asked) {
					t.Errorf("asked for %v, want %v", c.meter.asked, c.asked)
				}
				if took := time.Since(begin); took > 2*gaugeTime {
					t.Errorf("that took %v", took)
				}
			})
		})
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got := gauge(over, &scriptedMeter{}, true); !strings.Contains(got.Error, "no time left") {
		t.Errorf("when time is up: %+v", got)
	}
}

func TestVisit(t *testing.T) {
	answers := func(f http.HandlerFunc) string {
		s := httptest.NewServer(f)
		t.Cleanup(s.Close)
		return s.URL
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of the client that does not trust it
	secure.StartTLS()
	defer secure.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, c := range map[string]struct{ to, answer, word string }{
		"a page": {answers(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }), "200 OK", ""},
		"a redirect": {answers(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}), "302 Found", ""},
		"broken":    {answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }), "502 Bad Gateway", "log"},
		"not there": {"http://127.0.0.1:9", "", "--to"},
		"untrusted": {secure.URL, "", "x509"},
		"TCP":       {"tcp://" + silent.Addr().String(), "takes connections", ""},
		"no TCP":    {"tcp://127.0.0.1:9", "", "--to"},
		"silence":   {"http://" + silent.Addr().String(), "", "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			to, err := url.Parse(c.to)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			got := visit(ctx, to)
			if got.Answer != c.answer || (got.Error == "") != (c.word == "") || !strings.Contains(got.Error, c.word) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestBuffers(t *testing.T) {
	for _, c := range []struct{ receive, send, word string }{
		{"212992\n", "212992\n", "net.core.rmem_max=7340032 net.core.wmem_max=7340032"},
		{"7340032\n", "212992\n", "-w net.core.wmem_max=7340032"},
		{"7340032\n", "8000000\n", ""},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"rmem_max": c.receive, "wmem_max": c.send} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := readBuffers(dir)
		if got == nil || (got.Advice == "") != (c.word == "") || !strings.Contains(got.Advice, c.word) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	if got := readBuffers(t.TempDir()); got != nil {
		t.Errorf("of a system that does not tell: %+v", got)
	}
}
