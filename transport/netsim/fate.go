package netsim

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// verdict is what a link does with a packet.
type verdict uint8

const (
	passes    verdict = iota
	overtaken         // passes, later than packets that come after it
	lost
	dropped // found the queue full
)

// departure is a packet that is in the queue or in transmission.
type departure struct {
	at   int64
	size int
}

// link is a running Link. All times are in ns since the Line was made.
type link struct {
	// set at construction
	cfg   Link
	room  int
	pause int64 // what the loss of a TCP segment costs at least: a round trip

	mu sync.Mutex
	// guarded by mu
	service   service
	outages   outages
	loss      *rand.Rand
	burst     *rand.Rand
	jitter    *rand.Rand
	reorder   *rand.Rand
	bad       bool    // the state of Burst
	sway      float64 // jitter of the last packet, in standard deviations
	swayAt    int64
	now       int64 // time of the last call
	free      int64 // when all of the queue is transmitted
	arrival   int64 // of the last packet that was not overtaken
	queue     []departure
	head      int // of queue
	backlog   int // bytes in queue
	packets   uint64
	bytes     uint64
	lostCount uint64
	dropCount uint64

	// lateness of deliveries
	timed   atomic.Uint64
	lateSum atomic.Int64
	lateMax atomic.Int64
}

func newLink(cfg Link, seed, direction uint64, pause time.Duration) *link {
	if cfg.JitterTime == 0 {
		cfg.JitterTime = jitterTime
	}
	cfg.Outages.Windows = slices.Clone(cfg.Outages.Windows)
	// stream numbers are part of what a seed means: never renumber
	source := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, direction<<32|stream)) }
	l := &link{
		cfg: cfg, room: cfg.queueBytes(), pause: int64(pause),
		loss: source(1), burst: source(2), jitter: source(3), reorder: source(4),
		outages: outages{cfg: cfg.Outages, rng: source(5)},
	}
	l.service = newService(&l.cfg, source(6), &l.outages)
	l.sway = l.jitter.NormFloat64()
	return l
}

// packet decides over a datagram of size bytes, headers included, that reaches
// the link at now, and returns when it arrives.
func (l *link) packet(now int64, size int) (int64, verdict) {
	gone := l.lose()
	sway := l.draw()
	late := l.cfg.Reorder > 0 && l.reorder.Float64() < l.cfg.Reorder
	now = l.clock(now)
	if l.backlog > 0 && l.backlog+size > l.room {
		l.dropCount++
		return 0, dropped
	}
	at := l.send(now, size, sway)
	if gone || l.cfg.Outages.Lose && l.out(l.free) {
		l.lostCount++
		return 0, lost
	}
	if late {
		return at + int64(l.cfg.ReorderBy), overtaken
	}
	l.arrival = at
	return at, passes
}

// segment is packet for a part of a stream, which waits instead of being lost.
// The caller bounds what it sends and keeps the order of a stream.
func (l *link) segment(now int64, size int) int64 {
	const timeout = int64(200 * time.Millisecond) // Linux's least retransmission timeout
	gone := l.lose()
	sway := l.draw()
	late := l.cfg.Reorder > 0 && l.reorder.Float64() < l.cfg.Reorder
	at := l.send(l.clock(now), size, sway)
	if !gone && !late {
		l.arrival = at
	}
	if late {
		at += int64(l.cfg.ReorderBy)
	}
	if l.cfg.Outages.Lose && l.out(l.free) {
		at += l.outages.to - l.free + l.pause
	}
	wait := l.pause // the first time a fast retransmission, then timeouts
	for tries := 0; gone && tries < 6; tries++ {
		at += wait
		wait = l.pause + timeout<<tries
		l.lostCount++
		gone = l.lose()
	}
	return at
}

// clock returns now, or the last time if several callers raced to the link, and
// takes from the queue what has left it.
func (l *link) clock(now int64) int64 {
	l.now = max(l.now, now)
	for l.head < len(l.queue) && l.queue[l.head].at <= l.now {
		l.backlog -= l.queue[l.head].size
		l.head++
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head > len(l.queue)/2 {
		l.queue = l.queue[:copy(l.queue, l.queue[l.head:])]
		l.head = 0
	}
	return l.now
}

// send queues and transmits a packet, and returns when it arrives.
func (l *link) send(now int64, size int, noise float64) int64 {
	l.packets++
	l.bytes += uint64(size)
	l.free = l.service.transmit(max(now, l.free), size)
	if l.free > now {
		l.queue = append(l.queue, departure{l.free, size})
		l.backlog += size
	}
	at := l.free + int64(l.cfg.Delay)
	if l.cfg.Jitter > 0 {
		r := math.Exp(-float64(l.free-l.swayAt) / float64(l.cfg.JitterTime))
		// conversions keep compilers from fusing, so that all machines agree
		l.sway = float64(r*l.sway) + float64(math.Sqrt(1-float64(r*r))*noise)
		l.swayAt = l.free
		at = max(at+int64(l.sway*float64(l.cfg.Jitter)), l.free)
	}
	return max(at, l.arrival)
}

// lose moves the loss processes on by a packet and reports whether it is lost.
func (l *link) lose() bool {
	gone := l.cfg.Loss > 0 && l.loss.Float64() < l.cfg.Loss
	b := &l.cfg.Burst
	if b.Enter == 0 && b.LossGood == 0 {
		return gone
	}
	move, hit := l.burst.Float64(), l.burst.Float64()
	chance := b.LossGood
	if l.bad {
		l.bad = move >= b.Leave
	} else {
		l.bad = move < b.Enter
	}
	if l.bad {
		chance = b.LossBad
	}
	return hit < chance || gone
}

// draw returns the noise of the next packet's jitter.
func (l *link) draw() float64 {
	if l.cfg.Jitter == 0 {
		return 0
	}
	return l.jitter.NormFloat64()
}

// out reports whether t is in an outage.
func (l *link) out(t int64) bool {
	l.outages.seek(t)
	return t >= l.outages.from
}

// delivered notes how late a packet was that a timer waited for, in ns.
func (l *link) delivered(late int64) {
	l.timed.Add(1)
	l.lateSum.Add(late)
	for worst := l.lateMax.Load(); late > worst && !l.lateMax.CompareAndSwap(worst, late); {
		worst = l.lateMax.Load()
	}
}

// countLost notes a packet that was lost after the link had passed it.
func (l *link) countLost() {
	l.mu.Lock()
	l.lostCount++
	l.mu.Unlock()
}

// LinkStats counts what happened on a link since its Line was made.
type LinkStats struct {
	Packets uint64 // that the queue took: datagrams and TCP segments
	Bytes   uint64 // of these packets, with headers
	// Lost is by loss and outages; blocked datagrams; what a socket refused to
	// send, or had no room to hold. A TCP segment counts for each loss of it.
	Lost    uint64
	Dropped uint64 // that the queue did not take, or above the MTU
	// Late is how far behind its time a delivery was that a timer waited for,
	// LateMax the worst. They are the emulator's own error.
	Late, LateMax time.Duration
}

func (l *link) stats() LinkStats {
	l.mu.Lock()
	s := LinkStats{Packets: l.packets, Bytes: l.bytes, Lost: l.lostCount, Dropped: l.dropCount}
	l.mu.Unlock()
	if n := l.timed.Load(); n > 0 {
		s.Late = time.Duration(l.lateSum.Load() / int64(n))
	}
	s.LateMax = time.Duration(l.lateMax.Load())
	return s
}
