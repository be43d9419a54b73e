package share

import (
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const block = 16 << 10

// sender takes as much as it gets.
type sender struct {
	flow  *Flow
	bytes int64
	every time.Duration // a block comes; 0: there always is one
}

// run has senders take for a time, after a warm-up, and returns the bit/s of each.
func run(t *testing.T, during time.Duration, senders ...*sender) []float64 {
	t.Helper()
	const warm = time.Second
	var wait sync.WaitGroup
	begin := time.Now()
	for _, s := range senders {
		up, _ := s.flow.Halves()
		wait.Go(func() {
			for n := time.Duration(1); up.Take(block) == nil; n++ {
				if time.Since(begin) >= warm {
					s.bytes += block
				}
				if wait := n*s.every - time.Since(begin); wait > 0 {
					time.Sleep(wait)
				}
			}
		})
	}
	time.Sleep(warm + during)
	for _, s := range senders {
		s.flow.Leave()
	}
	wait.Wait()
	rates := make([]float64, len(senders))
	for i, s := range senders {
		rates[i] = float64(s.bytes) * 8 / during.Seconds()
	}
	return rates
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 0.02*want {
		t.Errorf("%s: %.2f Mbit/s, want %.2f within 2 %%", what, got/1e6, want/1e6)
	}
}

func sum(rates []float64) (all float64) {
	for _, r := range rates {
		all += r
	}
	return all
}

// jain is the fairness index of R. Jain, D. Chiu, W. Hawe: "A Quantitative
// Measure of Fairness and Discrimination", 1984.
func jain(x []float64) float64 {
	var squares float64
	for _, v := range x {
		squares += v * v
	}
	all := sum(x)
	return all * all / (float64(len(x)) * squares)
}

// TestEven has 100 routes ask for all they can get, one of them with 64 streams,
// beside a film that needs less than its share.
func TestEven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(1e9, nil)
		defer l.Close()
		var all []*sender
		for range 99 {
			all = append(all, &sender{flow: l.Route(1, 0).Device(0).Flow(wire.Playing)})
		}
		many := l.Route(1, 0)
		for i := range 64 {
			all = append(all, &sender{flow: many.Device(0).Flow(wire.Urgency(i % 3))})
		}
		film := &sender{flow: l.Route(1, 0).Device(0).Flow(wire.Playing), every: block * 8 * time.Second / 8e6}
		rates := run(t, 10*time.Second, append(all, film)...)
		near(t, "the line", sum(rates), 1e9)
		near(t, "the film of 8 Mbit/s", rates[len(rates)-1], 8e6)
		routes := append(rates[:99:99], sum(rates[99:163]))
		if j := jain(routes); j < 0.999 {
			t.Errorf("Jain's index of 100 routes is %.4f", j)
		}
		near(t, "the route with 64 streams", routes[99], (1e9-8e6)/100)
	})
}

func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(60e6, nil)
		defer l.Close()
		var all []*sender
		for weight := range 3 {
			all = append(all, &sender{flow: l.Route(1+weight, 0).Device(0).Flow(wire.Bulk)})
		}
		for i, rate := range run(t, 10*time.Second, all...) {
			near(t, "a route by its weight", rate, float64(1+i)*10e6)
		}
	})
}

// TestDevices divides a route among devices, whatever the number of their
// streams.
func TestDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(40e6, nil)
		defer l.Close()
		r := l.Route(1, 0)
		one, other := r.Device(0), r.Device(0)
		all := []*sender{{flow: one.Flow(wire.Playing)}}
		for range 4 {
			all = append(all, &sender{flow: other.Flow(wire.Playing)})
		}
		rates := run(t, 10*time.Second, all...)
		near(t, "the device with one stream", rates[0], 20e6)
		for _, rate := range rates[1:] {
			near(t, "one of four streams", rate, 5e6)
		}
	})
}

// TestHalves: the two directions of a stream are one share.
func TestHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(20e6, nil)
		defer l.Close()
		d := l.Route(1, 0).Device(0)
		both, single := d.Flow(wire.Playing), &sender{flow: d.Flow(wire.Playing)}
		_, down := both.Halves()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for down.Take(block) == nil {
			}
		}()
		rates := run(t, 10*time.Second, single, &sender{flow: both})
		<-done
		near(t, "a stream with one busy direction", rates[0], 10e6)
		near(t, "one of two busy directions", rates[1], 5e6)
	})
}

// TestUrgency: bulk has what playing leaves, in the same route only.
func TestUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(40e6, nil)
		defer l.Close()
		r, neighbour := l.Route(1, 0), l.Route(1, 0)
		rates := run(t, 10*time.Second,
			&sender{flow: r.Device(0).Flow(wire.Playing), every: block * 8 * time.Second / 8e6},
			&sender{flow: r.Device(0).Flow(wire.Bulk)},
			&sender{flow: r.Device(0).Flow(wire.Bulk)},
			&sender{flow: neighbour.Device(0).Flow(wire.Bulk)},
		)
		near(t, "the film", rates[0], 8e6)
		near(t, "bulk beside it", rates[1]+rates[2], 12e6)
		near(t, "bulk of the neighbour", rates[3], 20e6)
		rates = run(t, 10*time.Second,
			&sender{flow: r.Device(0).Flow(wire.Playing)},
			&sender{flow: r.Device(0).Flow(wire.Prefetch)},
			&sender{flow: neighbour.Device(0).Flow(wire.Bulk)},
		)
		near(t, "playing without end", rates[0], 20e6)
		near(t, "prefetch beside it", rates[1], 0)
		near(t, "bulk of the neighbour", rates[2], 20e6)
	})
}

// TestRates keeps routes and devices to their own rates, and gives the rest to
// the others.
func TestRates(t *testing.T) {
	for _, line := range []int64{0, 100e6} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLine(line, nil)
			defer l.Close()
			slow, fast := l.Route(1, 10e6), l.Route(1, 60e6)
			device := fast.Device(6e6)
			rates := run(t, 10*time.Second,
				&sender{flow: slow.Device(0).Flow(wire.Playing)},
				&sender{flow: slow.Device(0).Flow(wire.Playing)},
				&sender{flow: device.Flow(wire.Playing)},
				&sender{flow: device.Flow(wire.Bulk)},
				&sender{flow: fast.Device(0).Flow(wire.Playing)},
			)
			near(t, "a route of 10 Mbit/s", rates[0]+rates[1], 10e6)
			near(t, "a device of 6 Mbit/s", rates[2]+rates[3], 6e6)
			near(t, "the rest of its route", rates[4], 54e6)
			for name, reached := range map[string]time.Time{"slow": slow.Reached(), "fast": fast.Reached(), "device": device.Reached()} {
				if ago := time.Since(reached); ago > 250*time.Millisecond {
					t.Errorf("%s: the rate was reached %v ago", name, ago)
				}
			}
			if r := l.Reached(); !r.IsZero() {
				t.Errorf("the line of %d bit/s was reached at %v", line, r)
			}
		})
	}
}

// TestSet changes rates under way: up, down, to none and back.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(10e6, nil)
		defer l.Close()
		r := l.Route(1, 1e6)
		d := r.Device(0)
		s := &sender{flow: d.Flow(wire.Playing)}
		for _, c := range []struct {
			line, route, device int64
			want                float64
		}{{10e6, 1e6, 0, 1e6}, {10e6, 0, 0, 10e6}, {10e6, 0, 2e6, 2e6}, {5e6, 20e6, 0, 5e6}} {
			l.SetRate(c.line)
			r.Set(1, c.route)
			d.Set(c.device)
			s.flow, s.bytes = d.Flow(wire.Playing), 0
			near(t, "after a change", run(t, 10*time.Second, s)[0], c.want)
		}
		// One that waits for a slow rate goes on at once with a fast one.
		l.SetRate(8_000)
		flow := d.Flow(wire.Playing)
		up, _ := flow.Halves()
		taken := make(chan struct{})
		go func() {
			defer close(taken)
			for range 10 {
				up.Take(block)
			}
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		l.SetRate(0)
		<-taken
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("a half waited %v for a rate that no longer holds", took)
		}
		flow.Leave()
	})
}

// TestLeave wakes both halves, and leaves nothing behind.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(8_000, nil)
		defer l.Close()
		flow := l.Route(1, 0).Device(0).Flow(wire.Playing)
		up, down := flow.Halves()
		var wait sync.WaitGroup
		for _, h := range []*Half{up, down} {
			wait.Go(func() {
				for {
					if err := h.Take(block); err != nil {
						if !errors.Is(err, ErrLeft) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		if s := l.Stats(); s.Waiting != 2 || s.Bytes != 2*block {
			t.Errorf("waiting: %+v", s)
		}
		up.Leave() // the other one goes on
		if s := l.Stats(); s.Waiting != 1 || s.Bytes != block {
			t.Errorf("waiting after one half has left: %+v", s)
		}
		flow.Leave()
		wait.Wait()
		if s := l.Stats(); s != (WaitStats{}) || len(l.root.ready) != 0 {
			t.Errorf("left behind: %+v, %d ready", s, len(l.root.ready))
		}
		if err := up.Take(1); !errors.Is(err, ErrLeft) {
			t.Errorf("Take after Leave: %v", err)
		}
		flow.Leave()
	})
}

// TestWaited tells how long halves waited, and only of those that did.
func TestWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		l := NewLine(8*block, func(d time.Duration) { waits = append(waits, d) }) // a block in a second
		defer l.Close()
		flow := l.Route(1, 0).Device(0).Flow(wire.Playing)
		up, _ := flow.Halves()
		for range leastBurst/block + 2 {
			up.Take(block)
		}
		flow.Leave()
		if len(waits) != 2 || waits[0] > 10*time.Millisecond || (waits[1]-time.Second).Abs() > 10*time.Millisecond {
			t.Errorf("waits are %v", waits)
		}
	})
}

// TestIdleFlowGainsNothing: who was silent has no more than the others
// afterwards.
func TestIdleFlowGainsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLine(20e6, nil)
		defer l.Close()
		early, late := l.Route(1, 0).Device(0), l.Route(1, 0).Device(0)
		run(t, time.Minute, &sender{flow: early.Flow(wire.Playing)})
		rates := run(t, 10*time.Second, &sender{flow: early.Flow(wire.Playing)}, &sender{flow: late.Flow(wire.Playing)})
		near(t, "the busy one", rates[0], 10e6)
		near(t, "the one that comes", rates[1], 10e6)
	})
}

func TestTakeAllocates(t *testing.T) {
	free := NewLine(0, nil).Route(1, 0).Device(0).Flow(wire.Playing)
	line := NewLine(math.MaxInt64, nil)
	defer line.Close()
	wide := line.Route(1, 0).Device(0).Flow(wire.Playing)
	for name, flow := range map[string]*Flow{"no limit": free, "no wait": wide} {
		up, _ := flow.Halves()
		if n := testing.AllocsPerRun(1000, func() { up.Take(block) }); n != 0 {
			t.Errorf("%s: Take allocates %v times", name, n)
		}
	}
}

// BenchmarkTake is the cost of a block: without any limit, and of a line on which
// so many others wait.
func BenchmarkTake(b *testing.B) {
	b.Run("free", func(b *testing.B) {
		up, _ := NewLine(0, nil).Route(1, 0).Device(0).Flow(wire.Playing).Halves()
		b.SetBytes(block)
		for b.Loop() {
			up.Take(block)
		}
	})
	for name, others := range map[string]int{"alone": 0, "beside 2000": 2000} {
		b.Run(name, func(b *testing.B) {
			l := NewLine(1e15, nil)
			defer l.Close()
			var wait sync.WaitGroup
			var flows []*Flow
			for range others {
				f := l.Route(1, 1e6).Device(0).Flow(wire.Playing) // slow by itself: it waits
				flows = append(flows, f)
				up, _ := f.Halves()
				wait.Go(func() {
					for up.Take(block) == nil {
					}
				})
			}
			up, _ := l.Route(1, 0).Device(0).Flow(wire.Playing).Halves()
			b.SetBytes(block)
			for b.Loop() {
				up.Take(block)
			}
			for _, f := range flows {
				f.Leave()
			}
			wait.Wait()
		})
	}
}
