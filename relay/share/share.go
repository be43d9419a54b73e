// Package share divides what a relay forwards: among routes by weight, in a
// route among its devices, of a device among its streams, and it keeps each of
// them, and all together, to a rate.
//
//	line := share.NewLine(900e6, nil)      // bit/s, of the relay
//	route := line.Route(1, 50e6)           // weight and bit/s
//	device := route.Device(0)
//	flow := device.Flow(wire.Playing)      // a stream
//	up, down := flow.Halves()              // its directions
//	err := up.Take(len(p))                 // waits until p may be forwarded
//	...
//	flow.Leave()
//
// It is hierarchical start-time fair queueing (P. Goyal, H. Vin, H. Cheng:
// "Start-time Fair Queuing: A Scheduling Algorithm for Integrated Services Packet
// Switching Networks", 1996, section 3) with a token bucket at each level. What
// nobody asks for is divided among the others. One mutex guards a line, so that
// its limits hold for all sockets and goroutines together.
package share

import (
	"errors"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// ErrLeft is what Take returns after Leave.
var ErrLeft = errors.New("share: the flow has left")

// Line is what a relay forwards all together. Its methods, and those of its
// parts, may be called concurrently.
type Line struct {
	mu     sync.Mutex
	root   node
	parked parked // nodes with halves waiting beneath them whose bucket is empty
	timer  *time.Timer
	next   time.Time // when timer fires; zero: it does not
	wait   WaitStats
	waited func(time.Duration) // may be nil
}

// WaitStats says how much waits at a line.
type WaitStats struct {
	Waiting int   // halves of streams
	Bytes   int64 // that they ask for
}

// node is a line, a route, an urgency of a route, a device of that, a flow or
// a half. All fields are guarded by Line.mu.
type node struct {
	parent *node
	weight float64
	bucket *bucket // shared by the nodes of a device in its route's urgencies; nil: no limit
	strict int     // of an urgency: lower ones go first

	// Among its siblings.
	start float64 // start tag: virtual time of its parent at which its next bytes are due
	index int     // in parent.ready; -1: not there
	until time.Time
	spot  int // in Line.parked; -1: not there

	ready ready   // children beneath which a half waits that no bucket holds up
	clock float64 // virtual time: the start tag of the child that was served last

	half *Half // of a leaf
}

func (n *node) join(parent *node, weight float64, b *bucket) {
	*n = node{parent: parent, weight: weight, bucket: b, index: -1, spot: -1}
}

// NewLine returns a line for rate bit/s; 0 is no limit. waited, if it is not
// nil, is called with how long bytes have waited for their turn, if they have.
// It must not block.
func NewLine(rate int64, waited func(time.Duration)) *Line {
	l := &Line{waited: waited}
	l.root.join(nil, 1, &bucket{})
	l.root.bucket.set(rate, burstOfLine, time.Now())
	return l
}

// SetRate changes the rate of the line, in bit/s; 0 is no limit.
func (l *Line) SetRate(rate int64) { l.set(&l.root, 1, rate, burstOfLine) }

func (l *Line) set(n *node, weight float64, rate int64, burst time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	n.weight = weight
	n.bucket.set(rate, burst, now)
	if n.spot >= 0 { // it may have to wait less
		l.unpark(n)
	}
	l.dispatch(now)
}

// Stats returns what waits now.
func (l *Line) Stats() WaitStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wait
}

// Reached is until when the rate of the line has made bytes wait, the last time
// that it did so for a second or more; zero: never.
func (l *Line) Reached() time.Time { return l.reached(&l.root) }

func (l *Line) reached(n *node) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n.bucket.reached
}

// Route is what one route forwards.
type Route struct {
	line *Line
	node
	urgencies [wire.Bulk + 1]node
}

// Route adds a route with a weight of at least 1 and a rate in bit/s; 0 is no
// limit of its own. It costs nothing while it has no flow.
func (l *Line) Route(weight int, rate int64) *Route {
	r := &Route{line: l}
	r.join(&l.root, float64(max(1, weight)), &bucket{})
	r.bucket.set(rate, burstOfPart, time.Now())
	for i := range r.urgencies {
		r.urgencies[i].join(&r.node, 1, nil)
		r.urgencies[i].strict = i
	}
	return r
}

// Set changes the weight and the rate.
func (r *Route) Set(weight int, rate int64) {
	r.line.set(&r.node, float64(max(1, weight)), rate, burstOfPart)
}

// Reached is Reached of the line, for the route's own rate.
func (r *Route) Reached() time.Time { return r.line.reached(&r.node) }

// Device is what one device of a route forwards.
type Device struct {
	line      *Line
	urgencies [wire.Bulk + 1]node // one bucket
}

// Device adds a device with a rate in bit/s; 0 is no limit of its own.
func (r *Route) Device(rate int64) *Device {
	d := &Device{line: r.line}
	b := &bucket{}
	b.set(rate, burstOfPart, time.Now())
	for i := range d.urgencies {
		d.urgencies[i].join(&r.urgencies[i], 1, b)
	}
	return d
}

// Reached is Reached of the line, for the device's own rate.
func (d *Device) Reached() time.Time { return d.line.reached(&d.urgencies[0]) }

// Set changes the rate.
func (d *Device) Set(rate int64) {
	d.line.mu.Lock()
	defer d.line.mu.Unlock()
	now := time.Now()
	d.urgencies[0].bucket.set(rate, burstOfPart, now)
	for i := range d.urgencies {
		if n := &d.urgencies[i]; n.spot >= 0 {
			d.line.unpark(n)
		}
	}
	d.line.dispatch(now)
}

// Flow is what one stream forwards, in both directions.
type Flow struct {
	line *Line
	node
	halves [2]Half
}

// Half is one direction of a flow. One goroutine at a time calls its Take.
type Half struct {
	line *Line
	node
	granted sync.Cond // L is Line.mu
	want    int       // bytes that it waits for; 0: none
	since   time.Time // when it began to wait
	left    bool
}

// Flow adds a stream of the device.
func (d *Device) Flow(u wire.Urgency) *Flow {
	f := &Flow{line: d.line}
	f.join(&d.urgencies[min(u, wire.Bulk)], 1, nil)
	for i := range f.halves {
		h := &f.halves[i]
		h.line, h.granted.L = d.line, &d.line.mu
		h.join(&f.node, 1, nil)
		h.half = h
	}
	return f
}

// Halves returns the two directions.
func (f *Flow) Halves() (up, down *Half) { return &f.halves[0], &f.halves[1] }

// Leave takes the flow out. Takes that wait, and later ones, return ErrLeft.
func (f *Flow) Leave() {
	f.line.mu.Lock()
	defer f.line.mu.Unlock()
	for i := range f.halves {
		f.halves[i].leave()
	}
}

// Leave takes one direction out, as Leave of the flow does both.
func (h *Half) Leave() {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.leave()
}

// leave needs Line.mu.
func (h *Half) leave() {
	h.left = true
	h.line.withdraw(h)
	h.granted.Signal()
}

// Take waits until n bytes may be forwarded; n is at most some 16 KiB, so that
// nobody waits long for another. The error is ErrLeft.
func (h *Half) Take(n int) error {
	l := h.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.left {
		return ErrLeft
	}
	if n <= 0 || l.free(&h.node) {
		return nil
	}
	now := time.Now()
	h.want, h.since = n, now
	l.wait.Waiting++
	l.wait.Bytes += int64(n)
	l.activate(&h.node)
	l.dispatch(now)
	if h.want == 0 {
		return nil // at once
	}
	for h.want > 0 && !h.left {
		h.granted.Wait()
	}
	if h.left {
		return ErrLeft
	}
	if l.waited != nil {
		l.waited(time.Since(h.since))
	}
	return nil
}

// free reports whether no bucket is on the way from n to the line: then there is
// nothing to divide.
func (l *Line) free(n *node) bool {
	for ; n != nil; n = n.parent {
		if n.bucket != nil && n.bucket.limited() {
			return false
		}
	}
	return true
}

// withdraw takes back what a half waits for.
func (l *Line) withdraw(h *Half) {
	if h.want == 0 {
		return
	}
	l.settle(h)
	if h.index >= 0 {
		l.deactivate(&h.node)
	}
}

func (l *Line) settle(h *Half) {
	l.wait.Waiting--
	l.wait.Bytes -= int64(h.want)
	h.want = 0
}

// Close stops the line's timer. No flow may be left.
func (l *Line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
	}
}
