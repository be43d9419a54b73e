package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// endpoint is a Registration or an Attachment.
type endpoint interface {
	Leaving() <-chan struct{}
	Done() <-chan struct{}
	Draining() bool
	RetryAfter() time.Duration
	Err() error
	Close(wire.Code, string)
}

// drain empties the relay in the background and returns how many are left.
func (w *world) drain(within time.Duration) (left chan int) {
	left = make(chan int, 1) // one value by the goroutine
	go func() { left <- w.relay.Drain(context.Background(), within) }()
	synctest.Wait()
	return left
}

// TestDrain empties a relay of 100 endpoints, each of which leaves when it was
// told to.
func TestDrain(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		var all []endpoint
		for range 50 {
			s := w.stream()
			all = append(all, s.home, s.away)
		}
		begin := time.Now()
		left := w.drain(30 * time.Second)
		var last time.Duration
		var spread [5]int // of the times, in steps of 2 s
		var leaving sync.WaitGroup
		for _, e := range all {
			<-e.Leaving()
			after := e.RetryAfter()
			if !e.Draining() || after <= 0 || after > longestSpread {
				t.Fatalf("an endpoint hears %v and is to move after %v", e.Err(), after)
			}
			last = max(last, after)
			spread[(after-1)/(2*time.Second)]++
			leaving.Go(func() {
				time.Sleep(after)
				if closed := e.Err().(*wire.ClosedError); closed.Code != wire.CodeDraining {
					t.Errorf("a session ended before its time: %v", closed)
				}
				e.Close(wire.CodeNone, "")
			})
		}
		for i, n := range spread {
			if n < 4 {
				t.Errorf("%d of 100 endpoints move in the %d. fifth of the time: %v", n, i+1, spread)
			}
		}
		if told := time.Since(begin); told > 2*oneWay {
			t.Errorf("the goodbyes took %v", told)
		}
		before := w.relay.Endpoints()
		for before > 0 {
			time.Sleep(time.Second)
			now := w.relay.Endpoints()
			if now > before {
				t.Errorf("%d endpoints after %d", now, before)
			}
			before = now
		}
		if n := <-left; n != 0 {
			t.Errorf("%d endpoints are left", n)
		}
		if took := time.Since(begin); took < last || took > last+2*time.Second {
			t.Errorf("the drain took %v, the last endpoint left after %v", took, last)
		}
		leaving.Wait()
	})
}

// TestDrainServes shows that until its time is up a relay that is being
// emptied serves whom it has, and nobody else, and then ends them.
func TestDrainServes(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.stream()
		silent, agent := w.endpoint(false), w.endpoint(true)
		w.say(agent, wire.Hello{}.Append(nil))
		time.Sleep(time.Second)
		if got := w.gauge("blindrelay_draining"); got != 0 {
			t.Errorf("blindrelay_draining is %v before", got)
		}
		begin := time.Now()
		left := w.drain(20 * time.Second)
		if got := w.gauge("blindrelay_draining"); got != 1 {
			t.Errorf("blindrelay_draining is %v", got)
		}
		<-s.home.Leaving()
		<-s.away.Leaving()

		w.wantAlive(s)
		w.open(s.away, s.home)
		if err := s.home.Update(w.ctx(), nil, ""); err != nil {
			t.Error(err)
		}
		wantReset(t, w.ask(s.away), wire.CodeTokenRefused)

		w.say(silent, wire.Hello{}.Append(nil)) // it came before and speaks now
		wantClosed(t, silent, wire.CodeDraining)
		cert := transporttest.Certificate(t)
		_, err := hop.Register(w.ctx(), w.dial(&cert), wire.Register{})
		if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeDraining || closed.Text == "" {
			t.Errorf("a new agent gets %v", err)
		}
		d := w.device(wire.Route{})
		wantClosed(t, d, wire.CodeDraining)
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeDraining, 3)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the refusals took %v", took)
		}

		if n := <-left; n != 2 || time.Since(begin) != 20*time.Second {
			t.Errorf("%d endpoints were left after %v", n, time.Since(begin))
		}
		begin = time.Now()
		w.shutdown()
		<-s.home.Done()
		if took := time.Since(begin); took > 2*oneWay {
			t.Errorf("a shutdown after a drain took %v: nobody is to be told again", took)
		}
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeShutdown, 2)
	})
}

// TestDrainAsksLateAgents has an agent whose HELLO came before the drain and
// whose REGISTER comes after its begin: it is told, too.
func TestDrainAsksLateAgents(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		s := w.endpoint(true)
		control := w.say(s, wire.Hello{}.Append(nil))
		time.Sleep(time.Second)
		left := w.drain(time.Minute)
		control.Write(wire.Register{}.Append(nil))
		var got []wire.FrameType
		for len(got) < 3 {
			f, err := wire.ReadFrame(control)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			got = append(got, f.Type)
		}
		if want := fmt.Sprint([]wire.FrameType{wire.FrameWelcome, wire.FrameRegistered, wire.FrameGoodbye}); fmt.Sprint(got) != want {
			t.Errorf("got frames %v, want %v", got, want)
		}
		s.Close(wire.CodeNone, "")
		if n := <-left; n != 0 {
			t.Errorf("%d left", n)
		}
	})
}

// TestDrainEnds lets the three things end a drain that end it early.
func TestDrainEnds(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		stranger := w.endpoint(false) // says nothing: it holds nothing up
		begin := time.Now()
		if n := <-w.drain(time.Minute); n != 0 || time.Since(begin) != 0 {
			t.Errorf("an empty relay: %d left after %v", n, time.Since(begin))
		}
		if n := <-w.drain(time.Minute); n != 0 || time.Since(begin) != 0 {
			t.Errorf("the second time: %d left after %v", n, time.Since(begin))
		}
		stranger.Close(wire.CodeNone, "")
	})
	simulate(t, admitAll, func(w *world) {
		a, _ := w.agent()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if n := w.relay.Drain(ctx, time.Hour); n != 1 || time.Since(begin) != 3*time.Second {
			t.Errorf("%d left after %v", n, time.Since(begin))
		}
		if n := <-w.drain(time.Second); n != 1 || time.Since(begin) != 4*time.Second {
			t.Errorf("%d left after %v", n, time.Since(begin))
		}
		select {
		case <-a.Done():
			t.Errorf("a drain ends no session: %v", a.Err())
		default:
		}
		left := w.drain(time.Hour)
		a.Close(wire.CodeNone, "")
		if n := <-left; n != 0 || time.Since(begin) > 5*time.Second {
			t.Errorf("%d left after %v", n, time.Since(begin))
		}
	})
}

// gauge returns a metric's value.
func (w *world) gauge(name string) float64 {
	w.t.Helper()
	for _, c := range w.relay.Collectors() {
		if testutil.CollectAndCount(c, name) == 1 {
			return testutil.ToFloat64(c)
		}
	}
	w.t.Fatalf("there is no metric %s", name)
	return 0
}

// mover is an agent that keeps itself registered, and goes from a relay that
// is being emptied to the other one.
type mover struct {
	dial  func(addr string, cert *tls.Certificate) (transport.Session, error)
	cert  tls.Certificate
	addrs []string
	moves int
}

func (m *mover) register(ctx context.Context, at int) (*hop.Registration, error) {
	sess, err := m.dial(m.addrs[at], &m.cert)
	if err != nil {
		return nil, err
	}
	return hop.Register(ctx, sess, wire.Register{Instance: wire.Instance{1}, Tokens: []wire.TokenHash{token.Hash()}})
}

// run moves from reg, at relay number at, whenever it is asked to, until ctx
// ends.
func (m *mover) run(ctx context.Context, t *testing.T, reg *hop.Registration, at int) {
	for ctx.Err() == nil {
		select {
		case <-reg.Leaving():
		case <-ctx.Done():
			continue
		}
		if !reg.Draining() {
			t.Errorf("a session ended without a word before: %v", reg.Err())
			return
		}
		time.Sleep(reg.RetryAfter())
		next, err := m.register(ctx, 1-at)
		if err != nil {
			t.Errorf("register at the other relay: %v", err)
			return
		}
		reg.Close(wire.CodeNone, "")
		reg, at = next, 1-at
		m.moves++
	}
	reg.Close(wire.CodeNone, "")
}

// TestRollingRestart replaces two relays one after the other, twice, under 40
// agents. At each instant each of them is registered somewhere.
func TestRollingRestart(t *testing.T) {
	simulateOver(t, false, admitAll, func(w *world) {
		const agents = 40
		other := &site{conn: w.host()}
		w.start(other, admitAll)
		sites := []*site{w.site, other}
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		var running sync.WaitGroup
		var movers []*mover
		var routes []wire.Route
		for i := range agents {
			m := &mover{dial: w.dialer(), cert: transporttest.Certificate(t), addrs: []string{w.addr, other.addr}}
			reg, err := m.register(ctx, i%2)
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { m.run(ctx, t, reg, i%2) })
			movers, routes = append(movers, m), append(routes, wire.RouteOf(m.cert.Leaf.RawSubjectPublicKeyInfo))
		}
		var mu sync.Mutex // guards sites
		missing, looks := 0, 0
		watching, stopWatching := context.WithCancel(ctx)
		var watch sync.WaitGroup
		watch.Go(func() {
			for watching.Err() == nil {
				time.Sleep(5 * time.Millisecond)
				looks++
				mu.Lock()
				for _, route := range routes {
					_, one := sites[0].relay.registry.find(route, token.Hash())
					_, two := sites[1].relay.registry.find(route, token.Hash())
					if one != wire.CodeNone && two != wire.CodeNone {
						missing++
					}
				}
				mu.Unlock()
			}
		})
		for range 2 {
			for _, s := range sites {
				if left := s.relay.Drain(context.Background(), 30*time.Second); left != 0 {
					t.Errorf("%d agents are left when the time is up", left)
				}
				s.ln.Stop()
				s.shutdown(t)
				s.close(t)
				mu.Lock()
				w.start(s, admitAll)
				mu.Unlock()
				time.Sleep(time.Second)
			}
		}
		stopWatching()
		watch.Wait()
		stop()
		running.Wait()
		moves := 0
		for _, m := range movers {
			moves += m.moves
		}
		// 20, then all 40 each time.
		if moves != agents/2+3*agents {
			t.Errorf("%d moves, want %d", moves, agents/2+3*agents)
		}
		if missing != 0 || looks < 1000 {
			t.Errorf("in %d looks an agent was missing %d times", looks, missing)
		}
		other.shutdown(t)
		other.close(t)
	})
}
