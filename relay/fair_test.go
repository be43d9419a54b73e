package relay

import (
	"context"
	"crypto/tls"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/netsim"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const filmRate = 8e6 // bit/s

// crowd is 100 routes whose agents send all they can, the last one on 64 streams
// of 64 devices, and a film beside them.
type crowd struct {
	w     *world
	addr  string // of the relay
	dial  func(addr string, cert *tls.Certificate) (transport.Session, error)
	all   [100][]stream
	film  stream
	bytes [100]atomic.Int64
	from  time.Time // bytes count from here on
	until time.Time
	wait  sync.WaitGroup
}

// weighted admits everybody, one route with a weight of its own.
type weighted struct {
	route  wire.Route
	weight int
}

func (p weighted) Admit(_ context.Context, r admit.Request) (admit.Grant, error) {
	if r.Route == p.route {
		return admit.Grant{Weight: p.weight}, nil
	}
	return admit.Grant{}, nil
}

// crowd registers the routes at a relay and opens their streams.
func (w *world) crowd(addr string, film tls.Certificate) *crowd {
	c := &crowd{w: w, addr: addr, dial: w.dialer()}
	for i := range c.all {
		devices := 1
		if i == len(c.all)-1 {
			devices = 64
		}
		c.all[i] = c.route(transporttest.Certificate(w.t), devices)
	}
	c.film = c.route(film, 1)[0]
	return c
}

// route registers an agent and opens streams to it, each of a device of its own.
func (c *crowd) route(cert tls.Certificate, devices int) (all []stream) {
	w, t := c.w, c.w.t
	t.Helper()
	token, hashes := tokensOf(devices)
	s, err := c.dial(c.addr, &cert)
	if err != nil {
		t.Fatal(err)
	}
	home, err := hop.Register(w.ctx(), s, wire.Register{Tokens: hashes})
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range token {
		if s, err = c.dial(c.addr, nil); err != nil {
			t.Fatal(err)
		}
		away, err := hop.Attach(w.ctx(), s, wire.Open{Route: routeOf(cert), Token: own})
		if err != nil {
			t.Fatal(err)
		}
		device, agent := w.open(away, home)
		all = append(all, stream{home, away, agent, device})
	}
	return all
}

func routeOf(cert tls.Certificate) wire.Route { return wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo) }

// run has all send for a time, of which the bytes behind a warm-up count, plays
// the film from then on and returns how often that stood still.
func (c *crowd) run(warm, during time.Duration) (stalls int) {
	c.from = time.Now().Add(warm)
	c.until = c.from.Add(during)
	for i, streams := range c.all {
		for _, s := range streams {
			c.wait.Go(func() { c.send(s.agent) })
			c.wait.Go(func() { c.receive(s.device, &c.bytes[i]) })
		}
	}
	time.Sleep(warm)
	c.wait.Go(func() { c.send(c.film.agent) })
	stalls = c.play(c.film.device)
	c.wait.Wait()
	return stalls
}

func (c *crowd) send(st transport.Stream) {
	b := make([]byte, 32<<10)
	for time.Now().Before(c.until) {
		if _, err := st.Write(b); err != nil {
			c.w.t.Errorf("write: %v", err)
			return
		}
	}
	st.Reset(wire.CodeCancelled)
}

func (c *crowd) receive(st transport.Stream, count *atomic.Int64) {
	b := make([]byte, 32<<10)
	for {
		n, err := st.Read(b)
		if now := time.Now(); now.After(c.from) && now.Before(c.until) {
			count.Add(int64(n))
		}
		if err != nil {
			return
		}
	}
}

// play reads a second of film each second, once it has the first two.
func (c *crowd) play(st transport.Stream) (stalls int) {
	second := make([]byte, filmRate/8)
	due := time.Now()
	for n := 0; time.Now().Before(c.until); n++ {
		if _, err := io.ReadFull(st, second); err != nil {
			break
		}
		switch late := time.Since(due); {
		case n < 2:
			due = time.Now()
		case late > 0:
			stalls++
			due = time.Now()
		}
		if n > 0 {
			time.Sleep(time.Until(due))
			due = due.Add(time.Second)
		}
	}
	st.Reset(wire.CodeCancelled)
	return stalls
}

// TestFairness has 100 routes want all they can get of a relay's line. Each gets
// the same, however many streams and devices it has, and a film of 8 Mbit/s
// beside them does not stand still.
func TestFairness(t *testing.T) {
	if raceEnabled {
		t.Skip("skipped under the race detector, which takes minutes for it; TestRatesHold and package share run there")
	}
	check := func(t *testing.T, c *crowd, warm, during time.Duration) {
		stalls := c.run(warm, during)
		var all, squares, most float64
		for i := range c.bytes {
			x := float64(c.bytes[i].Load())
			all += x
			squares += x * x
			if i < len(c.bytes)-1 {
				most = max(most, x)
			}
		}
		jain, greedy := all*all/(100*squares), float64(c.bytes[99].Load())/most
		t.Logf("100 routes have %.0f Mbit/s together, Jain's index is %.4f; 64 streams of one route get %.3f of what the best other route does, the film stood still %d times",
			all*8/during.Seconds()/1e6, jain, greedy, stalls)
		if jain < 0.98 || greedy > 1.02 || stalls > 0 {
			t.Error("that is not fair")
		}
	}
	t.Run("TCP, 900 Mbit/s", func(t *testing.T) {
		cfg := limited(Limits{Egress: 900e6, MaxSessionsPerAddress: -1}) // a share is 8.9 Mbit/s
		simulateOver(t, true, cfg, func(w *world) {
			check(t, w.crowd(w.addr, transporttest.Certificate(t)), time.Second, 3*time.Second)
		})
	})
	// A line of 100 Mbit/s with a queue of 50 ms, where the film has the weight of
	// ten others.
	t.Run("QUIC, 90 of 100 Mbit/s", func(t *testing.T) {
		simulateOver(t, false, admitAll, func(w *world) {
			link := netsim.Link{Rate: 100e6, QueueTime: 50 * time.Millisecond}
			line, err := netsim.New(netsim.Config{Path: netsim.Path{Up: link, Down: link}, Seed: 1})
			if err != nil {
				t.Fatal(err)
			}
			w.ends = append(w.ends, func() { line.Close() })
			conn, err := line.WrapPacketConn(w.host())
			if err != nil {
				t.Fatal(err)
			}
			film := transporttest.Certificate(t)
			cfg := limited(Limits{Egress: 90e6, MaxSessionsPerAddress: -1})
			cfg.Admit = weighted{routeOf(film), 11}
			cfg.JitterBuffer = 128 << 10 // it is full sooner
			s := &site{conn: conn}
			w.start(s, cfg)
			check(t, w.crowd(s.addr, film), 10*time.Second, 10*time.Second)
			s.shutdown(t)
			s.close(t)
		})
	})
}
