package relay

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// several is an agent with n connections.
func (w *world) several(n int) (all []*hop.Registration, route wire.Route) {
	w.t.Helper()
	cert := transporttest.Certificate(w.t)
	for range n {
		all = append(all, w.join(cert, wire.Instance{0xaa}))
	}
	return all, wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
}

// arrived opens a stream and returns on which connection of the agent it came.
func (w *world) arrived(d *hop.Attachment, all []*hop.Registration) (on int, device, agent transport.Stream) {
	w.t.Helper()
	type arrival struct {
		on int
		st transport.Stream
	}
	device = w.ask(d)
	came := make(chan arrival, len(all)) // one value by each goroutine that gets a stream
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for i, a := range all {
		go func() {
			if st, err := a.Accept(ctx); err == nil {
				came <- arrival{i, st}
			}
		}()
	}
	select {
	case c := <-came:
		if _, err := hop.ReadIncoming(c.st); err != nil {
			w.t.Fatal(err)
		}
		return c.on, device, c.st
	case <-ctx.Done():
		w.t.Fatal("the stream reached no connection of the agent")
		return 0, nil, nil
	}
}

// TestPlaces gives each device the connection with the fewest streams. A
// device stays there while it has a stream.
func TestPlaces(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		all, route := w.several(3)
		if n := w.relay.registry.size(); n != 1 {
			t.Errorf("one agent is counted as %d", n)
		}
		var devices []*hop.Attachment
		seen := make(map[int]bool)
		for range 3 {
			d := w.device(route)
			on, _, _ := w.arrived(d, all)
			if seen[on] {
				t.Errorf("two devices share connection %d, another has none", on)
			}
			seen[on] = true
			for range 2 {
				if again, _, _ := w.arrived(d, all); again != on {
					t.Errorf("a device's streams came on the connections %d and %d", on, again)
				}
			}
			devices = append(devices, d)
		}
		// The second device leaves; so the next one takes its place.
		devices[1].Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		d := w.device(route)
		on, device, _ := w.arrived(d, all)
		counts := make([]int, 3)
		w.relay.registry.mu.Lock()
		g := w.relay.registry.groups[route]
		for i, a := range g.agents {
			counts[i] = a.streams
		}
		places := len(g.places)
		w.relay.registry.mu.Unlock()
		if counts[0]+counts[1]+counts[2] != 7 || counts[on] != 1 || places != 3 {
			t.Errorf("the connections have %v streams of %d devices, the new one on connection %d", counts, places, on)
		}
		device.Reset(wire.CodeCancelled)
		devices[0].Close(wire.CodeNone, "")
		devices[2].Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		w.relay.registry.mu.Lock()
		defer w.relay.registry.mu.Unlock()
		if n := len(g.places); n != 0 {
			t.Errorf("%d places are kept for devices without streams", n)
		}
		for i, a := range g.agents {
			if a.streams != 0 {
				t.Errorf("connection %d still counts %d streams", i, a.streams)
			}
		}
	})
}

// TestOneOfSeveralEnds ends one connection of an agent: its streams end, the
// others and the route go on, and a device that was there moves.
func TestOneOfSeveralEnds(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		all, route := w.several(2)
		one, two := w.device(route), w.device(route)
		on, lost, _ := w.arrived(one, all)
		other, device, agent := w.arrived(two, all)
		if on == other {
			t.Fatal("both devices are on one connection")
		}
		all[on].Close(wire.CodeNone, "")
		wantReset(t, lost, wire.CodeAgentGone)
		w.wantAlive(stream{agent: agent, device: device})
		if again, _, _ := w.arrived(one, all); again != other {
			t.Error("a stream went to a connection that is over")
		}
		all[other].Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		if n := w.relay.registry.size(); n != 0 {
			t.Errorf("%d routes are registered without a connection", n)
		}
	})
}

// TestSeveralAreReplaced lets another instance take the place of all.
func TestSeveralAreReplaced(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		cert := transporttest.Certificate(t)
		var old []*hop.Registration
		for range 3 {
			old = append(old, w.join(cert, wire.Instance{1}))
		}
		newer := w.join(cert, wire.Instance{2})
		for _, a := range old {
			wantClosed(t, a, wire.CodeReplaced)
		}
		time.Sleep(time.Minute)
		w.open(w.device(wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)), newer)
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeReplaced, 3)
	})
}

// TestTooManyConnections refuses one more than there may be, until one ends.
func TestTooManyConnections(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		cert := transporttest.Certificate(t)
		var all []*hop.Registration
		for range wire.MaxConnections {
			all = append(all, w.join(cert, wire.Instance{1}))
		}
		_, err := hop.Register(w.ctx(), w.dial(&cert), wire.Register{Instance: wire.Instance{1}})
		if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeTooManyConns || closed.Text == "" {
			t.Errorf("one too many: %v", err)
		}
		for _, a := range all {
			if a.Err() != nil {
				t.Errorf("another connection ended: %v", a.Err())
			}
		}
		all[3].Close(wire.CodeNone, "")
		time.Sleep(time.Second)
		w.join(cert, wire.Instance{1})
	})
}

// TestTokensOfAll updates the tokens on one connection, for all, and with a
// new connection.
func TestTokensOfAll(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		all, route := w.several(2)
		one, two := w.device(route), w.device(route)
		w.arrived(one, all)
		w.arrived(two, all)
		for _, a := range all {
			if err := a.Update(w.ctx(), nil, ""); err != nil {
				t.Fatal(err)
			}
			wantReset(t, w.ask(one), wire.CodeTokenRefused)
			wantReset(t, w.ask(two), wire.CodeTokenRefused)
			if err := a.Update(w.ctx(), []wire.TokenHash{token.Hash()}, ""); err != nil {
				t.Fatal(err)
			}
			w.arrived(one, all)
			w.arrived(two, all)
		}
	})
	simulate(t, admitAll, func(w *world) {
		cert := transporttest.Certificate(t)
		w.join(cert, wire.Instance{1})
		w.join(cert, wire.Instance{1}, wire.Token{99}.Hash())
		w.wantRefused(w.device(wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)), wire.CodeTokenRefused)
	})
}

// still is a session of which nothing has been heard for a time.
type still struct {
	transport.Session
	silent time.Duration
	over   error
}

func (s still) Silent() time.Duration { return s.silent }
func (s still) Err() error            { return s.over }

// TestQuietest chooses among connections.
func TestQuietest(t *testing.T) {
	const long = time.Minute
	for name, tc := range map[string]struct {
		silent  []time.Duration
		over    []bool
		streams []int
		want    int // -1: none
	}{
		"none":                       {want: -1},
		"the newest of equals":       {make([]time.Duration, 3), make([]bool, 3), []int{1, 1, 1}, 2},
		"the fewest streams":         {make([]time.Duration, 3), make([]bool, 3), []int{2, 1, 3}, 1},
		"not the silent one":         {[]time.Duration{0, long}, make([]bool, 2), []int{9, 0}, 0},
		"not the silent one, first":  {[]time.Duration{long, 0}, make([]bool, 2), []int{0, 9}, 1},
		"a silent one if all are":    {[]time.Duration{long, long}, make([]bool, 2), []int{3, 4}, 0},
		"one keep-alive is missing":  {[]time.Duration{0, 3 * time.Second}, make([]bool, 2), []int{1, 0}, 1},
		"not the one that is over":   {make([]time.Duration, 2), []bool{false, true}, []int{5, 0}, 0},
		"all are over":               {make([]time.Duration, 2), []bool{true, true}, []int{5, 0}, -1},
		"silent rather than is over": {[]time.Duration{long, 0}, []bool{false, true}, []int{5, 0}, 0},
	} {
		g := &group{}
		for i, n := range tc.streams {
			s := still{silent: tc.silent[i]}
			if tc.over[i] {
				s.over = io.EOF
			}
			g.agents = append(g.agents, &agent{session: &session{Session: s}, streams: n})
		}
		got := -1
		for i, a := range g.agents {
			if a == g.quietest() {
				got = i
			}
		}
		if got != tc.want {
			t.Errorf("%s: connection %d, want %d", name, got, tc.want)
		}
	}
}
