//go:build e2e && linux

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
)

// The storm is larger by hand:
//
//	go test -tags e2e -run 'TestStorm$' -v ./loadtest/e2e -agents 500 -devices 200 -away 3s
var (
	stormAgents  = flag.Int("agents", 50, "agents that lose their relay at once")
	stormDevices = flag.Int("devices", 20, "devices with a stream that lose it too, each at an agent of its own")
	stormAway    = flag.Duration("away", 3*time.Second, "how long that relay is dead")
)

// TestStorm kills the relay of many agents, and of devices that stream, and
// starts it again: all agents come back, every stream goes on with the byte that
// is due, and meanwhile nobody tries more often than one attempt after the other.
// The goal for 99% of the agents is 5 s; what is measured is printed. It has the
// machine to itself: it would take the others' seconds.
func TestStorm(t *testing.T) {
	if *stormAgents < 1 || *stormDevices < 0 || *stormDevices > *stormAgents || *stormAway <= 0 {
		t.Fatal("it takes an agent at least, no more devices than agents, and some time without a relay")
	}
	// No other program may take the port while the relay is dead.
	r := startRelay(t, newState(t), freeAddress(t), "--admit", "open")
	all := newTown(*stormAgents)
	defer all.close(t) // before the relay ends, which would wait for it
	all.settle(t, r, *stormDevices)
	eventually(t, readyTimeout, "every stream brings something", func() error { return all.flowsSince(time.Time{}) })
	time.Sleep(2 * time.Second)

	r.kill()
	killed := time.Now()
	dead := listenDead(t, r.host())
	time.Sleep(*stormAway)
	attempts := dead.end()
	back := time.Now()
	away := back.Sub(killed).Seconds()
	r = r.again(t, "--admit", "open")
	arriving := countArrivals(r, back)
	eventually(t, patience, "the agents are registered again", func() error { return all.registeredSince(back) })
	eventually(t, patience, "every stream goes on", func() error { return all.flowsSince(back) })
	time.Sleep(2 * time.Second)
	arrivals := arriving()
	content := all.finish(t)

	t.Logf("%d agents, %d devices with a stream each, relay dead for %.1f s", *stormAgents, *stormDevices, away)
	t.Logf("while it was: %d attempts, %.0f a second, %d in the worst second", len(attempts), float64(len(attempts))/away, worstSecond(attempts))
	t.Logf("%v", arrivals)
	t.Logf("agents registered again: %v; the goal for 99%% is 5 s; %d are there over TCP", spreadOf(all.registered(), back), all.onTCP())
	t.Logf("streams that went on: %d of %d, %v; longest gap %.2f s; %d kB in all",
		len(all.wentOn(back)), *stormDevices, spreadOf(all.wentOn(back), back), all.gap().Seconds(), content/1000)

	// The first may begin at any time.
	if limit := (*stormAgents + *stormDevices) * (1 + int(math.Ceil(away/attemptTime.Seconds()))); len(attempts) > limit {
		t.Errorf("%d attempts at a relay that is dead, want %d at most", len(attempts), limit)
	}
}

// attemptTime is how long an agent tries to reach a relay that is silent; a
// device takes longer.
const attemptTime = 4 * time.Second

// registeredSince is an error that says how many agents have not registered
// since a time.
func (w *town) registeredSince(then time.Time) error {
	missing := 0
	var why string
	for _, h := range w.homes {
		if s := h.status(); s.State != "reachable" || !s.Since.After(then) {
			missing++
			why = s.State + " " + s.Error
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d are not, one is %s", missing, len(w.homes), why)
	}
	return nil
}

func (h *stormHome) status() endpoint.RelayStatus { return h.agent.Status().Relays[0] }

// registered returns when each agent was.
func (w *town) registered() (at []time.Time) {
	for _, h := range w.homes {
		at = append(at, h.status().Since)
	}
	return at
}

// onTCP returns how many agents did not come by QUIC.
func (w *town) onTCP() (n int) {
	for _, h := range w.homes {
		if h.status().Protocol == "TCP" {
			n++
		}
	}
	return n
}

// spread is when things happened after something else had.
type spread struct{ half, nearly, all time.Duration }

func spreadOf(at []time.Time, since time.Time) spread {
	if len(at) == 0 {
		return spread{}
	}
	slices.SortFunc(at, time.Time.Compare)
	after := func(n int) time.Duration { return at[n-1].Sub(since) }
	return spread{after((len(at) + 1) / 2), after((len(at)*99 + 99) / 100), after(len(at))}
}

func (s spread) String() string {
	return fmt.Sprintf("half after %.2f s, 99%% after %.2f s, all after %.2f s", s.half.Seconds(), s.nearly.Seconds(), s.all.Seconds())
}

// worstSecond returns how many of the times, which are in order, lie within a
// second.
func worstSecond(at []time.Time) (most int) {
	first := 0
	for i := range at {
		for at[i].Sub(at[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// arrivals is what came to a relay after its start.
type arrivals struct {
	made, failed float64
	worst        float64 // a second
	cpu          float64 // seconds that the relay took
}

func (a arrivals) String() string {
	return fmt.Sprintf("after its return: %.0f connections and %.0f handshakes that failed, at most %.0f a second; %.1f s of its CPU",
		a.made, a.failed, a.worst, a.cpu)
}

// countArrivals reads the relay's metrics until the function that it returns is
// called.
func countArrivals(r relay, started time.Time) func() arrivals {
	type sample struct {
		at   time.Time
		seen float64
	}
	var a arrivals
	samples := []sample{{started, 0}}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			open, err1 := r.metric("blindrelay_sessions", "")
			ended, err2 := r.metric("blindrelay_sessions_ended_total", "")
			failed, err3 := r.metric("blindrelay_handshakes_failed_total", "")
			cpu, err4 := r.metric("process_cpu_seconds_total", "")
			if errors.Join(err1, err2, err3, err4) == nil {
				a.made, a.failed, a.cpu = open+ended, failed, cpu
				samples = append(samples, sample{time.Now(), open + ended + failed})
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	return func() arrivals {
		close(stop)
		wait.Wait()
		for i, from := range samples {
			for _, to := range samples[i:] {
				if d := to.at.Sub(from.at); d >= time.Second {
					a.worst = max(a.worst, (to.seen-from.seen)/d.Seconds())
					break
				}
			}
		}
		return a
	}
}
