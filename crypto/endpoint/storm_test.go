package endpoint

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// meter counts attempts by the second.
type meter struct {
	mu       sync.Mutex
	attempts map[int64]int // by second
}

func (m *meter) between(from, to time.Time) (all, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for second, n := range m.attempts {
		if second >= from.Unix() && second <= to.Unix() {
			all += n
			most = max(most, n)
		}
	}
	return all, most
}

type metered struct {
	dialer
	meter *meter
}

func (d metered) Dial(ctx context.Context, r wire.Relay, c *tls.Certificate) (transport.Session, error) {
	d.meter.mu.Lock()
	d.meter.attempts[time.Now().Unix()]++
	d.meter.mu.Unlock()
	return d.dialer.Dial(ctx, r, c)
}

// crowd makes agents, whose attempts the meter counts.
func (s *sky) crowd(n int) (m *meter, end func()) {
	s.t.Helper()
	m = &meter{attempts: make(map[int64]int)}
	s.prepare(n)
	var ends []func()
	for range n {
		_, end := s.agent(s.all(), nil, nil, func(a *Agent) { a.roster.dialer = metered{a.roster.dialer, m} })
		ends = append(ends, end)
		time.Sleep(7 * time.Millisecond)
	}
	time.Sleep(time.Minute)
	return m, func() {
		var wait sync.WaitGroup
		for _, end := range ends {
			wait.Go(end)
		}
		wait.Wait()
	}
}

// TestStorm kills the relay of many agents and brings it back: 99% are
// registered again within 5 s, and all the time they ask moderately.
func TestStorm(t *testing.T) {
	for _, c := range []struct {
		agents int
		down   time.Duration
	}{{40, 5 * time.Second}, {200, 30 * time.Second}, {20, 5 * time.Minute}} {
		underSky(t, 1, func(t *testing.T, s *sky) {
			m, end := s.crowd(c.agents)
			defer end()
			r := s.relays[0]
			s.expect(0, "at the start", s.relays, c.agents)
			before := r.asked()
			start := time.Now()
			r.kill()
			time.Sleep(c.down)
			all, most := m.between(start, time.Now())
			t.Logf("%d agents, relay dead for %v: %d attempts, %.1f a second, %d in the worst second",
				c.agents, c.down, all, float64(all)/c.down.Seconds(), most)
			// The worst second is that in which all notice that it is gone.
			if most > c.agents {
				t.Errorf("%d attempts in a second by %d agents", most, c.agents)
			}
			// An attempt takes 4 s, and the pause after it 1.5 s at least.
			if limit := c.agents * (2 + int(c.down/(5500*time.Millisecond))); all > limit {
				t.Errorf("%d attempts, want %d at most", all, limit)
			}
			r.start()
			back := time.Now()
			var took []time.Duration
			for len(took) < c.agents && time.Since(back) < time.Minute {
				for n := r.count(); len(took) < n; {
					took = append(took, time.Since(back))
				}
				time.Sleep(10 * time.Millisecond)
			}
			if len(took) < c.agents {
				t.Fatalf("%d of %d agents are back after a minute", len(took), c.agents)
			}
			nearly := took[(c.agents*99+99)/100-1]
			t.Logf("half of the agents back after %v, 99%% after %v, all after %v; %d greetings at the relay",
				took[c.agents/2], nearly, took[c.agents-1], r.asked()-before)
			if nearly > 5*time.Second {
				t.Errorf("99%% of the agents are back after %v, want 5 s at most", nearly)
			}
		})
	}
}

// TestStormElsewhere kills one of three relays of 40 agents: those that it had
// are at another one within 5 s, and all have two.
func TestStormElsewhere(t *testing.T) {
	const agents = 40
	underSky(t, 3, func(t *testing.T, s *sky) {
		m, end := s.crowd(agents)
		defer end()
		counts := func() (all []int, sum int) {
			for _, r := range s.relays {
				all = append(all, r.count())
				sum += r.count()
			}
			return all, sum
		}
		each, sum := counts()
		if sum != 2*agents || slices.Min(each) < agents/4 { // 5 standard deviations
			t.Errorf("%d agents are registered as %v, want two relays each, evenly", agents, each)
		}
		start := time.Now()
		s.relays[0].kill()
		for _, sum := counts(); sum < 2*agents; _, sum = counts() {
			if time.Since(start) > time.Minute {
				t.Fatal("some agents have one relay for a minute")
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("of %v, relay 0 dies: all have two relays again after %v", each, time.Since(start))
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("all agents have two relays again after %v, want 5 s at most", took)
		}
		time.Sleep(time.Minute)
		all, most := m.between(start, time.Now())
		t.Logf("%d attempts in the first minute, %d in the worst second", all, most)
		s.relays[0].start()
		time.Sleep(2*time.Minute + settled)
		if now, _ := counts(); !slices.Equal(now, each) {
			t.Errorf("after the relay's return they are registered as %v, before it was %v", now, each)
		}
	})
}
