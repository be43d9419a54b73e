package share

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestExtremeWeights has routes of weights that no tag can tell apart any more
// from what was forwarded before: they share evenly, and each moves on.
func TestExtremeWeights(t *testing.T) {
	for name, weights := range map[string][]int{
		"the most":  {math.MaxInt, math.MaxInt, math.MaxInt},
		"a billion": {1e9, 1e9, 1e9},
	} {
		synctest.Test(t, func(t *testing.T) {
			line := NewLine(80e6, nil)
			defer line.Close()
			line.root.clock = 1e15 // a petabyte has passed
			var senders []*sender
			for _, w := range weights {
				d := line.Route(w, 0).Device(0)
				for range 2 {
					senders = append(senders, &sender{flow: d.Flow(wire.Playing)})
				}
			}
			for i, rate := range run(t, 5*time.Second, senders...) {
				near(t, name+": "+string(rune('a'+i)), rate, 80e6/float64(len(senders)))
			}
		})
	}
}

// TestLineUnderChange lets everything happen at once that may happen to a line,
// rates from none to the slowest and the fastest that a number holds: each Take
// ends, and nothing is left of any.
func TestLineUnderChange(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) { change(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func change(t *testing.T, r *rand.Rand) {
	rate := func() int64 {
		return []int64{0, 0, 1, 100_000, 1e6, 1e9, 1e15, math.MaxInt64}[r.IntN(8)]
	}
	line := NewLine(rate(), func(time.Duration) {})
	defer line.Close()
	var routes []*Route
	var devices []*Device
	for range 4 {
		route := line.Route(1+r.IntN(math.MaxInt), rate())
		routes = append(routes, route)
		for range 3 {
			devices = append(devices, route.Device(rate()))
		}
	}
	var wait sync.WaitGroup
	flows := make(map[*Flow]bool)
	for range 1000 {
		switch r.IntN(12) {
		case 0:
			line.SetRate(rate())
		case 1:
			routes[r.IntN(len(routes))].Set(r.IntN(math.MaxInt), rate())
		case 2:
			devices[r.IntN(len(devices))].Set(rate())
		case 3, 4:
			for f := range flows {
				delete(flows, f)
				f.Leave()
				break
			}
		case 5, 6, 7:
			f := devices[r.IntN(len(devices))].Flow(wire.Urgency(r.IntN(3)))
			flows[f] = true
			n := 1 + r.IntN(block)
			up, down := f.Halves()
			for _, h := range []*Half{up, down} {
				wait.Go(func() {
					for h.Take(n) == nil {
						time.Sleep(time.Millisecond)
					}
				})
			}
		default:
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
	}
	// Without a limit nothing waits any longer.
	line.SetRate(0)
	for _, route := range routes {
		route.Set(1, 0)
	}
	for _, d := range devices {
		d.Set(0)
	}
	if s := line.Stats(); s != (WaitStats{}) {
		t.Errorf("%+v wait without any limit", s)
	}
	if n := len(line.parked) + len(line.root.ready); n > 0 {
		t.Errorf("%d nodes are parked or ready without any limit", n)
	}
	for f := range flows {
		f.Leave()
	}
	wait.Wait()
	for _, route := range routes {
		if n := len(route.ready); n > 0 {
			t.Errorf("%d nodes are left in a route", n)
		}
	}
}
