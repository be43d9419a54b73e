package share

import (
	"container/heap"
	"math"
	"time"
)

// activate puts n among the ready children of its parent, and the parents
// above it that had none among theirs. A parked node stays parked.
func (l *Line) activate(n *node) {
	for p := n.parent; p != nil && n.index < 0 && n.spot < 0; n, p = p, p.parent {
		n.start = max(n.start, p.clock)
		heap.Push(&p.ready, n)
	}
}

// deactivate takes n, which is ready, away, and the parents above it that have
// no other ready child.
func (l *Line) deactivate(n *node) {
	for p := n.parent; p != nil && n.index >= 0; n, p = p, p.parent {
		heap.Remove(&p.ready, n.index)
		if len(p.ready) > 0 {
			return
		}
	}
}

// dispatch lets through what may pass now, and sets the timer for the rest.
func (l *Line) dispatch(now time.Time) {
	for len(l.parked) > 0 && !l.parked[0].until.After(now) {
		l.unpark(l.parked[0])
	}
	for len(l.root.ready) > 0 && l.root.spot < 0 {
		if n := l.first(now); n.half != nil {
			l.grant(n)
		}
	}
	l.arm(now)
}

// first returns the half whose turn it is, or the node on the way to it that it
// had to park.
func (l *Line) first(now time.Time) *node {
	n := &l.root
	for {
		if n.bucket != nil {
			if wait := n.bucket.wait(now); wait > 0 {
				l.park(n, now.Add(wait))
				return n
			}
		}
		if n.half != nil {
			return n
		}
		n = n.ready[0]
	}
}

// grant lets a half's bytes through, and moves the clocks on its way on.
func (l *Line) grant(n *node) {
	h := n.half
	bytes := h.want
	l.deactivate(n)
	l.settle(h)
	for ; n != nil; n = n.parent {
		if n.bucket != nil {
			n.bucket.pay(bytes)
		}
		if n.parent == nil {
			break
		}
		n.parent.clock = max(n.parent.clock, n.start)
		// By one step of a float64 at least: beside a clock that has come far the
		// bytes of a heavy node vanish, and its turn would never end.
		n.start = max(n.start+float64(bytes)/n.weight, math.Nextafter(n.start, math.Inf(1)))
		if n.index >= 0 {
			heap.Fix(&n.parent.ready, n.index)
		}
	}
	h.granted.Signal()
}

func (l *Line) park(n *node, until time.Time) {
	if n.parent != nil {
		l.deactivate(n)
	}
	n.until = until
	heap.Push(&l.parked, n)
}

func (l *Line) unpark(n *node) {
	heap.Remove(&l.parked, n.spot)
	if len(n.ready) > 0 {
		l.activate(n)
	}
}

// arm sets the timer to the moment when the first parked node may go on.
func (l *Line) arm(now time.Time) {
	if len(l.parked) == 0 {
		return
	}
	until := l.parked[0].until
	if !l.next.IsZero() && !until.Before(l.next) {
		return // it will look again
	}
	l.next = until
	if l.timer == nil {
		l.timer = time.AfterFunc(until.Sub(now), l.fire)
		return
	}
	l.timer.Reset(until.Sub(now))
}

func (l *Line) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = time.Time{}
	l.dispatch(time.Now())
}
