package loadtest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/localrelay"
	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// short is a scenario that a busy machine carries.
func short(kind viewer.Kind) Scenario {
	return Scenario{
		Duration: 2 * time.Second, Ramp: 200 * time.Millisecond,
		Groups: []Group{{Kind: kind, Viewers: 3, Bitrate: 1_000_000}},
	}
}

func localRelay(t *testing.T) *localrelay.Relay {
	t.Helper()
	return relayThatAdmits(t, nil)
}

func relayThatAdmits(t *testing.T, policy admit.Policy) *localrelay.Relay {
	t.Helper()
	r, err := localrelay.Start(localrelay.Config{BufferMemory: 128 << 20, Admit: policy, TCP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestRunThroughRelay(t *testing.T) {
	r := localRelay(t)
	s := short(viewer.VOD)
	s.Link, s.HomeLink, s.ViewersPerHome, s.SLO = "cable", "fibre", 2, "never_started<=0"
	seen := 0
	res, err := Run(t.Context(), s, Target{Relay: &r.At, Probe: probe.Self{}, Live: func(ctx context.Context, snapshot func() Snapshot) {
		<-ctx.Done()
		seen = int(snapshot().Viewers.Arrived)
	}})
	if err != nil {
		t.Fatal(err)
	}
	v := res.Viewers
	if v.Arrived != 3 || v.Started != 3 || v.Verified == 0 || v.Verified != v.Bytes || v.Corrupt != 0 || v.Connects != 3 || seen != 3 {
		t.Errorf("viewers: %+v, the live view saw %d", v, seen)
	}
	if res.Hists[result.HistStart].Count() != 3 || res.Hists[result.HistConnect].Count() != 3 || res.Hists[result.HistDelay].Count() == 0 {
		t.Errorf("%d start-ups, %d connects", res.Hists[result.HistStart].Count(), res.Hists[result.HistConnect].Count())
	}
	if res.Links == nil || res.Links.Packets == 0 || res.Relay == nil || len(res.Samples) == 0 || len(res.SLO) != 1 || !res.SLO[0].Held {
		t.Errorf("links %+v, relay %+v, %d samples, verdicts %+v", res.Links, res.Relay, len(res.Samples), res.SLO)
	}
}

// TestRunWithoutUDP lets viewers watch from networks that block UDP, where a
// start-up takes the head start of QUIC, and a second or two for the segment.
func TestRunWithoutUDP(t *testing.T) {
	r := localRelay(t)
	s := short(viewer.VOD)
	s.Link, s.Duration = "hotel", 6*time.Second
	res, err := Run(t.Context(), s, Target{Relay: &r.At})
	if err != nil {
		t.Fatal(err)
	}
	if v := res.Viewers; v.Started != 3 || v.Verified == 0 || v.Verified != v.Bytes || res.Links == nil || res.Links.Packets == 0 {
		t.Errorf("viewers: %+v, links %+v", v, res.Links)
	}
}

// TestRunFindsCorruption serves a film in which one byte is wrong.
func TestRunFindsCorruption(t *testing.T) {
	s := short(viewer.Progressive)
	for name, test := range map[string]struct {
		corrupt string
		want    bool
	}{
		"true film":     {"", false},
		"one byte else": {origin.FilmPath(1_000_000), true},
	} {
		o, err := origin.New(origin.Config{Seed: 1, Bitrates: []int64{1_000_000}, Length: 4 * time.Second, Corrupt: test.corrupt})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(o)
		// The viewers expect the same film as Run makes it, of the same seed,
		// as far as the short one goes.
		res, err := runWith(t.Context(), s, Target{URL: server.URL}, origin.Config{Seed: 1, Bitrates: []int64{1_000_000}, Length: 4 * time.Second})
		server.Close()
		if err != nil {
			t.Fatal(err)
		}
		if held, why := verdict(res); (res.Viewers.Corrupt > 0) != test.want || test.want && (held || why != "wrong bytes") {
			t.Errorf("%s: %d corrupt answers, %v, %s", name, res.Viewers.Corrupt, held, why)
		}
	}
}

func TestRunOpenArrivals(t *testing.T) {
	o, err := origin.New(originConfig(short(viewer.VOD)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(o)
	defer server.Close()
	s := short(viewer.VOD)
	s.Arrivals = 20
	s.Groups[0].LeaveAfter = 500 * time.Millisecond
	res, err := Run(t.Context(), s, Target{URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	// A Poisson process with a mean of 40: outside 15 to 70 once in 10,000.
	if n := res.Viewers.Arrived; n < 15 || n > 70 {
		t.Errorf("%d viewers arrived in 2 s at 20 each second", n)
	}
	if res.Viewers.Left == 0 || res.Viewers.Verified == 0 {
		t.Errorf("viewers: %+v", res.Viewers)
	}
}

// TestRunEndsEarly cancels a run: its result is of what was seen.
func TestRunEndsEarly(t *testing.T) {
	r := localRelay(t)
	s := short(viewer.Music)
	s.Duration = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	res, err := Run(ctx, s, Target{Relay: &r.At})
	if err != nil {
		t.Fatal(err)
	}
	if res.Took > time.Minute || res.Viewers.Started != 3 {
		t.Errorf("after %v: %+v", res.Took, res.Viewers)
	}
}

// TestRunByInvite lets three viewers be one device of a server that somebody
// else shares.
func TestRunByInvite(t *testing.T) {
	r := localRelay(t)
	films, err := origin.New(originConfig(short(viewer.VOD)))
	if err != nil {
		t.Fatal(err)
	}
	home, err := pair.OpenHome(filepath.Join(t.TempDir(), "home"))
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: []wire.Relay{r.At}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { http.Serve(agent.Listen(), films) })
	defer serving.Wait()
	defer agent.Close()
	if err := agent.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	invite, err := home.NewInvite("load", 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	res, err := Run(t.Context(), short(viewer.VOD), Target{Invite: &invite, Path: origin.VOD})
	if err != nil {
		t.Fatal(err)
	}
	if v := res.Viewers; v.Started != 3 || v.Bytes == 0 || v.Verified != 0 {
		t.Errorf("viewers: %+v", v)
	}
	if n := len(home.Devices()); n != 1 {
		t.Errorf("%d devices paired, want one", n)
	}
}

func TestRunRefuses(t *testing.T) {
	good := short(viewer.VOD)
	for name, change := range map[string]func(*Scenario, *Target){
		"no target":     func(_ *Scenario, t *Target) { *t = Target{} },
		"bad link":      func(s *Scenario, _ *Target) { s.Link = "carrier pigeon" },
		"bad objective": func(s *Scenario, _ *Target) { s.SLO = "quick" },
		"home of a URL": func(s *Scenario, _ *Target) { s.HomeLink = "fibre" },
		"no viewers":    func(s *Scenario, _ *Target) { s.Groups = nil },
	} {
		s, target := good, Target{URL: "http://127.0.0.1:1"}
		change(&s, &target)
		if _, err := Run(t.Context(), s, target); err == nil {
			t.Errorf("%s: it ran", name)
		}
	}
}

// TestTickets loads a relay that admits by ticket, with viewers and with agents
// alone, with tickets of its issuer and without.
func TestTickets(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := admit.IssuerOf(key)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := admit.NewTickets([]admit.Issuer{issuer})
	if err != nil {
		t.Fatal(err)
	}
	r := relayThatAdmits(t, policy)
	ticket := func(route wire.Route) (string, error) {
		return admit.Ticket{Route: route, Grant: admit.Grant{Until: time.Now().Add(time.Hour)}}.Sign(key)
	}
	res, err := Run(t.Context(), short(viewer.VOD), Target{Relay: &r.At, Ticket: ticket})
	if err != nil || res.Viewers.Started != 3 || res.Viewers.Verified == 0 {
		t.Errorf("with tickets: %+v, %v", res, err)
	}
	cfg := AgentsConfig{Relay: r.At, Ticket: ticket, Agents: 3}
	idle, err := MeasureIdle(t.Context(), cfg)
	if err != nil || idle.Stayed != 3 {
		t.Errorf("agents with tickets: %+v, %v", idle, err)
	}
	cfg.Ticket = nil
	if _, err := MeasureIdle(t.Context(), cfg); !closedBy(err, wire.CodeTicketMissing) {
		t.Errorf("agents without tickets: %v, want %v", err, wire.CodeTicketMissing)
	}
	cfg.Ticket = func(wire.Route) (string, error) { return ticket(wire.Route{1}) }
	if _, err := MeasureIdle(t.Context(), cfg); !closedBy(err, wire.CodeTicketRefused) {
		t.Errorf("agents with another's ticket: %v, want %v", err, wire.CodeTicketRefused)
	}
}

func closedBy(err error, code wire.Code) bool {
	closed, ok := errors.AsType[*wire.ClosedError](err)
	return ok && closed.Code == code
}

func TestAgents(t *testing.T) {
	r := localRelay(t)
	cfg := AgentsConfig{Relay: r.At, Agents: 20, Probe: probe.Self{}, Settle: 100 * time.Millisecond}
	idle, err := MeasureIdle(t.Context(), cfg)
	if err != nil || idle.Agents != 20 || idle.Stayed != 20 || idle.Failed != 0 {
		t.Errorf("idle: %+v, %v", idle, err)
	}
	storm, err := MeasureStorm(t.Context(), cfg)
	if err != nil || storm.Failed != 0 || storm.P99 <= 0 || storm.PerSecond <= 0 {
		t.Errorf("storm: %+v, %v", storm, err)
	}
	churn, err := MeasureChurn(t.Context(), cfg, 300*time.Millisecond)
	if err != nil || churn.Rounds == 0 || churn.Joined == 0 || churn.Failed != 0 || churn.After.Goroutines == 0 {
		t.Errorf("churn: %+v, %v", churn, err)
	}
	cfg.Relay.Addr = "127.0.0.1:1"
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := MeasureIdle(ctx, cfg); err == nil {
		t.Error("a relay that is not there holds idle agents")
	}
}
