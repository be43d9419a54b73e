// Package netwatch tells when the machine's way to the network may have
// changed: another default route, an address that came or went, or the machine
// has slept.
//
//	w := netwatch.New(netwatch.Config{})
//	defer w.Close()
//	for e := range w.Changes() {
//		// look whether the connections still work
//	}
//
// On Linux the kernel reports changes (rtnetlink); elsewhere, and where it may
// not be asked, the interfaces' addresses are compared every few seconds. What
// is reported is a reason to look, not a finding: a change may not matter to a
// connection, and a network can fail without a change on this machine.
package netwatch

import (
	"context"
	"sync"
	"time"
)

// Event is what has happened.
type Event int

const (
	// Network says that addresses or default routes have changed.
	Network Event = 1 + iota
	// Woke says that the machine has slept, or stood still, for some time.
	Woke
)

func (e Event) String() string {
	switch e {
	case Network:
		return "the network has changed"
	case Woke:
		return "the machine has slept"
	}
	return "unknown event"
}

// Config is how to watch. The zero value is good.
type Config struct {
	// Settle is how long a burst of changes has to be over before it is
	// reported, as one; 250 ms if 0. A burst that goes on is reported after
	// four times as long.
	Settle time.Duration
	// Poll is how often interfaces are compared where the kernel does not
	// report changes; 3 s if 0.
	Poll time.Duration
}

// Watcher watches the machine's network.
type Watcher struct {
	// changes: sent to by run, which closes it. It holds one event of each
	// kind, so that a slow reader misses none that he has not yet to read.
	changes chan Event
	cancel  context.CancelFunc
	wait    sync.WaitGroup
}

// New starts to watch, with two goroutines.
func New(cfg Config) *Watcher {
	if cfg.Settle == 0 {
		cfg.Settle = 250 * time.Millisecond
	}
	if cfg.Poll == 0 {
		cfg.Poll = 3 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{changes: make(chan Event, 2), cancel: cancel}
	moved := make(chan struct{}, 1) // sent to by watch; one says it all
	watch := watchSystem(cfg.Poll)
	w.wait.Go(func() {
		watch(ctx, func() {
			select {
			case moved <- struct{}{}:
			default:
			}
		})
	})
	w.wait.Go(func() { w.run(ctx, cfg.Settle, moved, machineClock()) })
	return w
}

// Changes returns the channel of events, which Close closes. An event that was
// not read when the same happens again stands for both.
func (w *Watcher) Changes() <-chan Event { return w.changes }

// Close ends watching and waits for it.
func (w *Watcher) Close() {
	w.cancel()
	w.wait.Wait()
}

// clockEvery is how often clocks are compared, sleptFor by how much they must
// differ.
const (
	clockEvery = time.Second
	sleptFor   = 2 * time.Second
)

// run turns what moved and the clock into events. away returns for how long the
// machine has slept in all; what it counts from does not matter.
func (w *Watcher) run(ctx context.Context, settle time.Duration, moved <-chan struct{}, away func() time.Duration) {
	defer close(w.changes)
	ticker := time.NewTicker(clockEvery)
	defer ticker.Stop()
	slept := away()
	var calm <-chan time.Time // when the burst counts as over; nil: there is none
	var begun time.Time       // of the burst
	for {
		select {
		case <-ctx.Done():
			return
		case <-moved:
			now := time.Now()
			if calm == nil {
				begun = now
			}
			calm = time.After(min(settle, 4*settle-now.Sub(begun)))
		case <-calm:
			calm = nil
			w.send(Network)
		case <-ticker.C:
			now := away()
			if now-slept >= sleptFor {
				w.send(Woke)
			}
			slept = now
		}
	}
}

// send sends e unless it waits there already. Only run adds to the channel, so
// what it has taken out fits in again.
func (w *Watcher) send(e Event) {
	waiting := false
	for range len(w.changes) {
		select {
		case old := <-w.changes:
			waiting = waiting || old == e
			w.changes <- old
		default: // the reader was faster
		}
	}
	if !waiting {
		w.changes <- e
	}
}
