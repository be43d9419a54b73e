package relay

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestMeasure measures both ways as an agent and as a device, until each has
// measured as much as it may.
func TestMeasure(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		const each = 1 << 20
		s := w.stream()
		w.relay.mu.Lock()
		for sess := range w.relay.sessions {
			sess.measured = wire.MaxMeasured - 4*each
		}
		w.relay.mu.Unlock()
		for name, measure := range map[string]func(up bool, bytes int) (float64, error){
			"agent":  func(up bool, bytes int) (float64, error) { return s.home.Measure(w.ctx(), up, bytes) },
			"device": func(up bool, bytes int) (float64, error) { return s.away.Measure(w.ctx(), up, bytes) },
		} {
			for _, up := range []bool{true, false, true, false} {
				if rate, err := measure(up, each); err != nil || rate < 1<<20 {
					t.Errorf("%s, up %v: %.0f bytes/s, %v", name, up, rate, err)
				}
			}
			if _, err := measure(true, 1); resetCode(err) != wire.CodeMeasureLimit {
				t.Errorf("%s measures more than it may: %v", name, err)
			}
			if _, err := measure(true, wire.MaxMeasure+1); err == nil {
				t.Errorf("%s measures more at a time than it may", name)
			}
		}
		w.wantAlive(s)
		m := w.relay.metrics
		for _, c := range []measured{m.measuredUp, m.measuredDown} {
			if done, bytes := testutil.ToFloat64(c.done), testutil.ToFloat64(c.bytes); done != 4 || bytes != 4*each {
				t.Errorf("%v measurements of %v bytes are counted", done, bytes)
			}
		}
		wantCount(t, "measurements refused", m.measurementsRefused, wire.CodeMeasureLimit, 2)
		wantCount(t, "streams refused", m.streamsRefused, wire.CodeMeasureLimit, 0)
	})
}

// TestMeasureRefused measures where nobody lets the device in.
func TestMeasureRefused(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		if _, err := w.device(wire.Route{1}).Measure(w.ctx(), true, 1); resetCode(err) != wire.CodeRouteUnknown {
			t.Errorf("at an unknown route: %v", err)
		}
		_, route := w.agent(wire.Token{99}.Hash())
		if _, err := w.device(route).Measure(w.ctx(), false, 1); resetCode(err) != wire.CodeTokenRefused {
			t.Errorf("with a token that is not listed: %v", err)
		}
		for _, code := range []wire.Code{wire.CodeRouteUnknown, wire.CodeTokenRefused} {
			wantCount(t, "measurements refused", w.relay.metrics.measurementsRefused, code, 1)
		}
	})
	one := 2*(64<<10) + streamOverhead()
	simulate(t, Config{Admit: admitAll.Admit, BufferMemory: one + windowMemory() + 1000}, func(w *world) {
		s := w.stream()
		if _, err := s.away.Measure(w.ctx(), true, 1); resetCode(err) != wire.CodeMemory {
			t.Errorf("without memory: %v", err)
		}
		s.device.Reset(wire.CodeCancelled)
		time.Sleep(time.Second)
		if _, err := s.away.Measure(w.ctx(), true, 1000); err != nil {
			t.Errorf("with memory: %v", err)
		}
	})
}

// TestMeasureSlow has an endpoint that sends or takes less than it said: the
// relay answers with what passed when the time is up, not before. Meanwhile no
// other measurement of the session is served, and the agent's tokens change.
func TestMeasureSlow(t *testing.T) {
	for _, down := range []bool{false, true} {
		simulate(t, admitAll, func(w *world) {
			s := w.stream()
			sess := w.dial(nil)
			w.say(sess, wire.Hello{}.Append(nil))
			ask := wire.Measure{Down: down, Bytes: wire.MaxMeasure, Route: w.onlyRoute(), Token: token}
			begin := time.Now()
			st := w.say(sess, ask.Append(nil))
			st.Write(make([]byte, 1000))
			time.Sleep(time.Second)
			wantReset(t, w.say(sess, ask.Append(nil)), wire.CodeMeasureLimit)
			if err := s.home.Update(w.ctx(), nil, ""); err != nil {
				t.Error(err)
			}
			if down {
				time.Sleep(2 * measureTime)
				n, err := io.Copy(io.Discard, st)
				if err != nil || n == 0 || n >= wire.MaxMeasure {
					t.Errorf("%d bytes came, then %v", n, err)
				}
			} else {
				f, err := wire.ReadFrame(st)
				took := time.Since(begin)
				if err != nil || took < measureTime || took > measureTime+4*oneWay {
					t.Fatalf("%v after %v", err, took)
				}
				m, err := wire.ParseMeasured(f.Payload)
				if err != nil || m.Bytes != 1000 || m.Time != uint32(measureTime.Microseconds()) {
					t.Errorf("the relay says %+v, %v", m, err)
				}
				if _, err := st.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("behind MEASURED: %v", err)
				}
			}
			if sess.Err() != nil {
				t.Errorf("the session is over: %v", sess.Err())
			}
		})
	}
}

// onlyRoute is the one that is registered.
func (w *world) onlyRoute() wire.Route {
	w.relay.registry.mu.Lock()
	defer w.relay.registry.mu.Unlock()
	for route := range w.relay.registry.groups {
		return route
	}
	w.t.Fatal("no route is registered")
	return wire.Route{}
}

// TestMeasureEndsEarly cuts measurements short: they leave nothing behind, and
// the next one is served.
func TestMeasureEndsEarly(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		a, _ := w.agent()
		sess := w.dial(nil)
		w.say(sess, wire.Hello{}.Append(nil))
		for _, down := range []bool{false, true} {
			ask := wire.Measure{Down: down, Bytes: wire.MaxMeasure, Route: w.onlyRoute(), Token: token}.Append(nil)
			w.say(sess, ask).Reset(wire.CodeCancelled)
			time.Sleep(time.Second)
			if s := w.relay.budget.Stats(); s.Streams != 0 {
				t.Errorf("down %v: a measurement that was reset holds memory", down)
			}
			st := w.say(sess, ask)
			st.CloseWrite()
			if _, err := io.Copy(io.Discard, st); err != nil {
				t.Errorf("down %v: the next one: %v", down, err)
			}
		}
		w.say(sess, wire.Measure{Bytes: 10, Route: w.onlyRoute(), Token: token}.Append(nil))
		time.Sleep(time.Second)
		sess.Close(wire.CodeNone, "")
		if _, err := a.Measure(w.ctx(), true, 1); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := w.relay.budget.Stats(); s.Streams != 0 {
			t.Error("a measurement outlives its session")
		}
	})
}

// TestMeasureStarved measures at a route whose rate a film takes all of, which
// goes first: the measurement ends in its time all the same, and leaves nothing.
func TestMeasureStarved(t *testing.T) {
	cfg := admitAll
	cfg.Limits = Limits{RouteRate: 2e6}
	for _, down := range []bool{false, true} {
		simulateOver(t, false, cfg, func(w *world) {
			s := w.stream()
			go io.Copy(io.Discard, s.device)
			go func() {
				for {
					if _, err := s.agent.Write(make([]byte, 1<<20)); err != nil {
						return
					}
				}
			}()
			time.Sleep(5 * time.Second)
			begin := time.Now()
			s.away.Measure(w.ctx(), !down, wire.MaxMeasure) // what passes is not the point
			if took := time.Since(begin); took > measureTime+time.Second {
				t.Errorf("down %v: a measurement that gets nothing took %v", down, took)
			}
			time.Sleep(time.Second)
			if n := w.relay.budget.Stats().Streams; n != 1 {
				t.Errorf("down %v: %d streams hold memory, and the film is one", down, n)
			}
		})
	}
}

// TestMeasurementsShare: who measures over many connections takes no more of a
// route than one device does.
func TestMeasurementsShare(t *testing.T) {
	simulate(t, limited(Limits{RouteRate: 8e6}), func(w *world) {
		token, hashes := tokensOf(2)
		home, route := w.agent(hashes...)
		away := w.deviceOf(route, token[0])
		device, agent := w.openUrgent(away, home, wire.Bulk)
		var wait sync.WaitGroup
		for range 8 {
			sess := w.dial(nil)
			w.say(sess, wire.Hello{}.Append(nil))
			st := w.say(sess, wire.Measure{Down: true, Bytes: wire.MaxMeasure, Route: route, Token: token[1]}.Append(nil))
			wait.Go(func() { io.Copy(io.Discard, st) })
		}
		const during = 8 * time.Second // less than a measurement
		var within int
		wait.Go(func() { pump(t, agent, during) })
		wait.Go(func() { _, within = drink(t, device, during) })
		wait.Wait()
		if rate := float64(within) * 8 / during.Seconds(); rate < 3.6e6 {
			t.Errorf("a download has %.1f Mbit/s of 8 beside one device that measures", rate/1e6)
		}
	})
}
