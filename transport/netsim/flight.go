package netsim

import (
	"net"
	"os"
	"sync"
	"time"
)

// payload is the room of a packet: more than an MTU lets pass, so that a read
// into it shows what is too long.
const payload = 2048

const (
	// maxHeld bounds the packets of one socket on their way in one direction;
	// datagrams beyond are lost.
	maxHeld = 1 << 15
	// maxSegments is where a stream waits, however short its segments are.
	maxSegments = 1 << 12
)

// packet is a datagram, a part of a stream, or a stream's end, on its way.
type packet struct {
	next *packet
	at   int64    // when it arrives, in ns since the Line was made
	addr net.Addr // where a datagram goes to or comes from
	err  error    // ends a stream
	n    int
	read int // bytes of data that were read from a stream's part
	data [payload]byte
}

// list is a queue of packets.
type list struct{ first, last *packet }

func (q *list) add(p *packet) {
	if p.next = nil; q.first == nil {
		q.first = p
	} else {
		q.last.next = p
	}
	q.last = p
}

// flight holds the packets of one socket that are on their way over one link.
// One goroutine at a time takes them out.
type flight struct {
	line *Line
	link *link
	// wake is sent to, without waiting, by whoever changes what the taker waits
	// for. One wake-up that is pending is enough, hence its capacity.
	wake  chan struct{}
	timer *time.Timer // of the taker

	mu sync.Mutex
	// guarded by mu
	order    list // in order of push
	late     list // what was overtaken, likewise
	held     int  // packets in both
	bytes    int  // payload in both, and what the taker has not settled
	deadline int64
	err      error // for the taker when it finds no packet, once set
	limit    int64 // packets that arrive later are gone, if err is set
}

func newFlight(line *Line, l *link) *flight {
	f := &flight{line: line, link: l, wake: make(chan struct{}, 1), timer: time.NewTimer(never), deadline: never}
	f.timer.Stop()
	return f
}

// poke wakes who waits on c, now or next.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push takes p over and reports whether it has; it has not if f holds too many
// or is finished. Unless p is overtaken, it is taken after all that was pushed
// before it, which keeps a stream in order whatever the link says.
func (f *flight) push(p *packet, v verdict) bool {
	f.mu.Lock()
	if f.err != nil || f.held == maxHeld {
		f.mu.Unlock()
		return false
	}
	q := &f.order
	if v == overtaken {
		q = &f.late
	}
	first := q.first == nil // otherwise the taker waits for another
	q.add(p)
	f.held++
	f.bytes += p.n
	f.mu.Unlock()
	if first {
		poke(f.wake)
	}
	return true
}

// next returns the packet that is due at now, or until when to wait for one.
func (f *flight) next(now int64) (p *packet, until int64, err error) {
	if now >= f.deadline {
		return nil, 0, os.ErrDeadlineExceeded
	}
	q := &f.order
	if q.first == nil || f.late.first != nil && f.late.first.at < q.first.at {
		q = &f.late
	}
	until = f.deadline
	p = q.first
	if f.err != nil && (p == nil || p.at > f.limit || now > f.limit) {
		return nil, 0, f.err
	}
	if p != nil && p.at <= now {
		q.first = p.next
		f.held--
		return p, 0, nil
	}
	if p != nil {
		until = min(until, p.at)
	}
	return nil, until, nil
}

// take waits for the next packet. The error is os.ErrDeadlineExceeded, or what
// finish was told. The caller settles the packet.
func (f *flight) take() (*packet, error) {
	timed := false // a timer was waited for, so that being late is its fault
	for {
		now := f.line.now()
		f.mu.Lock()
		p, until, err := f.next(now)
		f.mu.Unlock()
		if p != nil && timed {
			f.link.delivered(now - p.at)
		}
		if p != nil || err != nil {
			return p, err
		}
		var due <-chan time.Time
		if until != never {
			f.timer.Reset(time.Duration(until - now))
			due = f.timer.C
		}
		select {
		case <-due:
			timed = true
		case <-f.wake:
			timed = false
		}
		f.timer.Stop()
	}
}

// poll is take for a packet that is due already, nil if there is none.
func (f *flight) poll() *packet {
	now := f.line.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	p, _, _ := f.next(now)
	return p
}

// settle gives a packet back that take returned.
func (f *flight) settle(p *packet) {
	f.mu.Lock()
	f.bytes -= p.n
	f.mu.Unlock()
	f.line.free(p)
}

// full reports whether a stream with this window has to wait, and the error of
// finish.
func (f *flight) full(window int) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes >= window || f.held >= maxSegments, f.err
}

// finished returns the error of finish.
func (f *flight) finished() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// finish lets nothing further in. What arrives within linger can still be
// taken, then take returns err. Only the first error counts, the shortest
// linger does.
func (f *flight) finish(err error, linger time.Duration) {
	limit := f.line.now() + int64(linger)
	f.mu.Lock()
	if f.err == nil {
		f.err, f.limit = err, limit
	}
	f.limit = min(f.limit, limit)
	f.mu.Unlock()
	poke(f.wake)
}

// discard frees what is left, after finish.
func (f *flight) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range []*list{&f.order, &f.late} {
		for p := q.first; p != nil; {
			next := p.next
			f.line.free(p)
			p = next
		}
		*q = list{}
	}
	f.held = 0
}

func (f *flight) setDeadline(t time.Time) {
	at := int64(never)
	if !t.IsZero() {
		at = int64(t.Sub(f.line.start))
	}
	f.mu.Lock()
	f.deadline = at
	f.mu.Unlock()
	poke(f.wake)
}
