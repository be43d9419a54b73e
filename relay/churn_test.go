package relay

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A churn that failed is made again, as far as goroutines allow:
//
//	go test -run TestChurn ./relay -seed 1234
var churnSeed = flag.Uint64("seed", 0, "of the chances of TestChurn; 0: another one each time")

// heapSlack is what the heap may have grown by: pools, and the routes whose
// volume is remembered. A session that is not forgotten takes some 50 KiB.
const heapSlack = 1 << 20 // bytes

// TestChurn lets agents and devices come, go, freeze and vanish at a relay for
// hours, against limits that are met and that change, and expects that nothing
// is left of them when all have gone: no route, no session, no stream, no
// memory, no goroutine.
func TestChurn(t *testing.T) {
	seed := *churnSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	t.Run("QUIC", func(t *testing.T) { churnOver(t, false, seed) })
	t.Run("TCP", func(t *testing.T) { churnOver(t, true, seed) })
}

func churnOver(t *testing.T, tcp bool, seed uint64) {
	cfg := Config{BufferMemory: 8 << 20, JitterBuffer: 64 << 10, Receipts: admit.NewReceipts([32]byte{1}), Limits: townLimits, Admit: admit.Open{}}
	simulateOver(t, tcp, cfg, func(w *world) {
		c := newTown(w, seed)
		c.relay.SetPolicy(context.Background(), c)
		var wait sync.WaitGroup
		rounds, begin := 0, time.Now()
		// The first rounds leave what stays: goroutines of the carrier, pools,
		// tables at their size.
		for range 20 {
			wait.Go(c.round(c.chance()))
			time.Sleep(time.Second)
		}
		wait.Wait()
		before := c.quiet()
		ctx, cancel := context.WithCancel(context.Background())
		keeper := sync.WaitGroup{}
		keeper.Go(func() { c.keep(ctx, c.chance()) })
		keeper.Go(func() { c.operate(ctx, c.chance()) })
		for time.Since(begin) < churnTime {
			wait.Go(c.round(c.chance()))
			rounds++
			time.Sleep(c.exponential(roundEvery))
		}
		wait.Wait()
		c.quiet()
		c.wantIdle()
		cancel()
		keeper.Wait()
		after := c.quiet()
		for range 5 { // a goroutine of the runtime, which runs cleanups, passes
			if after.goroutines <= before.goroutines {
				break
			}
			after = c.quiet()
		}
		t.Logf("%d rounds in %v: %.0f sessions, %.0f streams, %.1f MB", rounds, time.Since(begin), c.total(c.relay.metrics.sessionsEnded),
			testutil.ToFloat64(c.relay.metrics.streamsOpened), float64(c.relay.Forwarded())/1e6)
		t.Logf("before: %v", before)
		t.Logf("after:  %v", after)
		if after.left != before.left || before.left != (left{}) {
			t.Errorf("when all have gone the relay still has %+v", after.left)
		}
		if after.goroutines > before.goroutines {
			var stacks strings.Builder
			pprof.Lookup("goroutine").WriteTo(&stacks, 1)
			t.Errorf("%d goroutines run, and %d did at the start:\n%s", after.goroutines, before.goroutines, stacks.String())
		}
		if after.heap > before.heap+heapSlack {
			t.Errorf("the heap has %d KiB, and had %d at the start", after.heap>>10, before.heap>>10)
		}
		c.wantMet(churnTime > time.Hour*6)
	})
}

// left is what a relay has of its endpoints. A relay without any has zeros.
type left struct {
	sessions, welcomed, counted, addresses int
	routes, registered                     int // streams of all routes in the latter
	waiting                                int // for OPEN
	reserved, used, streams                int64
	sharing                                int // halves that wait for their turn
	sharingBytes                           int64
	agents, devices, forwarded             float64 // as the metrics have it
}

type footprint struct {
	left
	goroutines int
	heap       int64 // bytes
}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d KiB of heap", f.goroutines, f.heap>>10)
}

// quiet waits until who has vanished is forgotten, and returns what the relay
// takes then.
func (c *town) quiet() (f footprint) {
	time.Sleep(2 * time.Minute)
	r := c.relay
	r.mu.Lock()
	f.sessions, f.welcomed, f.counted, f.addresses = len(r.sessions), r.welcomed, r.limit.taken, len(r.limit.of)
	r.mu.Unlock()
	r.registry.mu.Lock()
	f.routes, f.registered = len(r.registry.groups), r.registry.streams
	r.registry.mu.Unlock()
	r.waiting.mu.Lock()
	f.waiting = r.waiting.oldest.Len()
	r.waiting.mu.Unlock()
	b, s := r.budget.Stats(), r.line.Stats()
	f.reserved, f.used, f.left.streams = b.Reserved, b.Used, b.Streams
	f.sharing, f.sharingBytes = s.Waiting, s.Bytes
	m := r.metrics
	f.agents, f.devices = testutil.ToFloat64(m.sessions[roleAgent]), testutil.ToFloat64(m.sessions[roleDevice])
	f.forwarded = testutil.ToFloat64(m.streams)
	runtime.GC()
	runtime.GC() // what a pool held is garbage now
	f.goroutines = runtime.NumGoroutine()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	f.heap = int64(mem.HeapAlloc)
	return f
}

// wantIdle checks that agents which are still there have no trace of their
// devices but those that may come again.
func (c *town) wantIdle() {
	c.t.Helper()
	r := &c.relay.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.groups {
		on := 0
		for _, a := range g.agents {
			on += a.streams
		}
		if on+g.streams+g.present+len(g.places) > 0 || len(g.devices) > len(tokens) {
			c.t.Errorf("an agent without devices has %d streams, %d on its connections, %d devices and %d places, and remembers %d devices",
				g.streams, on, g.present, len(g.places), len(g.devices))
		}
	}
}

// wantConsistent checks what each agent counts of its devices against the
// devices, at any time.
func (c *town) wantConsistent() {
	r := &c.relay.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.groups {
		present, streams, on := 0, 0, 0
		for _, d := range g.devices {
			streams += d.streams
			if d.streams > 0 {
				present++
			}
		}
		for _, a := range g.agents {
			on += a.streams
		}
		if present != g.present || streams != g.streams || on > streams || len(g.places) > on {
			c.t.Errorf("an agent counts %d devices with %d streams, which have %d; %d have a place, %d streams a connection",
				g.present, g.streams, streams, len(g.places), on)
		}
	}
}

// wantMet logs what the churn has met, and checks that nothing is missing of what
// always comes in numbers, if it was long enough.
func (c *town) wantMet(long bool) {
	c.t.Helper()
	m := c.relay.metrics
	for name, of := range map[string]struct {
		counters
		codes []wire.Code
	}{
		"sessions ended": {m.sessionsEnded, []wire.Code{
			wire.CodeNone, wire.CodeSilent, wire.CodeAddressLimit, wire.CodeNotAdmitted, wire.CodeTicketExpired,
		}},
		"streams refused": {m.streamsRefused, []wire.Code{
			wire.CodeRouteUnknown, wire.CodeTokenRefused, wire.CodeDeviceLimit, wire.CodeStreamLimit, wire.CodeVolumeLimit, wire.CodeMemory,
		}},
		"streams ended": {m.streamsEnded, []wire.Code{
			wire.CodeNone, wire.CodeCancelled, wire.CodeRefused, wire.CodeAgentGone, wire.CodeDeviceGone,
		}},
		"limits told": {m.limitsTold, []wire.Code{
			wire.CodeDeviceLimit, wire.CodeStreamLimit, wire.CodeVolumeLimit, wire.CodeRouteRate, wire.CodeDeviceRate, wire.CodeEgressRate, wire.CodeMemory,
		}},
	} {
		met := ""
		for _, code := range slices.Sorted(maps.Keys(of.by)) {
			if n := testutil.ToFloat64(of.by[code]); n > 0 {
				met += fmt.Sprintf(" %v %.0f", code, n)
			}
		}
		c.t.Logf("%s:%s", name, met)
		for _, code := range of.codes {
			if long && testutil.ToFloat64(of.of(code)) == 0 {
				c.t.Errorf("%s: none with code %v, so that the test has missed something", name, code)
			}
		}
	}
	if !long {
		return
	}
	for name, n := range map[string]prometheus.Counter{"given": m.receiptsGiven, "taken": m.receiptsTaken} {
		if testutil.ToFloat64(n) == 0 {
			c.t.Errorf("no receipt was %s", name)
		}
	}
	if c.relay.registry.volumeSpent() == 0 || testutil.ToFloat64(m.measuredUp.done) == 0 || testutil.ToFloat64(m.measuredDown.done) == 0 {
		c.t.Error("no volume was used, or nothing measured")
	}
}

// total sums a counter of all codes.
func (c *town) total(of counters) (sum float64) {
	for _, n := range of.by {
		sum += testutil.ToFloat64(n)
	}
	return sum + testutil.ToFloat64(of.other)
}
