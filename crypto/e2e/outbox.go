package e2e

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Bounds of what a writer keeps until the other endpoint has read it, which is
// also the end-to-end flow control.
const (
	streamLog  = 4 << 20  // bytes of one stream
	sessionLog = 32 << 20 // bytes of all streams of a session
	// A record that came early costs this beside its bytes.
	blockCost = 256
)

// stopped, as the number of the next record that a reader wants, says that it
// wants none any more.
const stopped = math.MaxUint64

// errWriteEnded is what a Write after CloseWrite returns.
var errWriteEnded = errors.New("write to a sealed stream after its end")

// errUnread is what a Write returns when the other endpoint reads no more.
var errUnread = fmt.Errorf("write to a sealed stream: the other endpoint reads no more of it: %w", &wire.ResetError{Code: wire.CodeNone})

// block is one or two sealed records, and what a carrier writes at a time.
type block struct {
	room       []byte // what data is in
	data       []byte
	first, end uint64   // numbers of its records: from first to before end
	by         *carrier // has taken it; nil: nobody, or one that is gone
	writers    int      // carriers that are reading data: by, and lost ones that have not noticed
	acked      bool     // and no longer in the log
}

// cost is what a block counts for in the bounds.
func (b *block) cost() int { return len(b.room) }

// outbox is the log of a write half: its sealed records from the first one on
// that the other endpoint has not acknowledged. Conn.mu guards it, but for
// what wmu does.
type outbox struct {
	half *half // wmu
	end  bool  // wmu: the END record is sealed

	blocks fifo[*block] // in order
	todo   int          // blocks before it are taken
	held   int          // cost of blocks, and of what is being sealed
	last   uint64       // one more than the number of END; 0 before
	acked  uint64       // all records before it are acknowledged; stopped: no more are wanted
}

// done reports whether nothing is left to be delivered. Needs mu.
func (o *outbox) done() bool { return o.acked == stopped || o.last > 0 && o.acked >= o.last }

// sealBlock seals up to two records of p, and the END record if p is empty and
// end is true. It returns how much of p it took. Needs wmu.
func (c *Conn) sealBlock(p []byte, end bool) (b *block, took int, err error) {
	o := &c.out
	size := 0
	for n := min(len(p), 2*maxContent); ; n -= maxContent {
		size += recordOverhead + min(n, maxContent)
		if n <= maxContent {
			break
		}
	}
	padding := 0
	if o.half.seq == 0 {
		padding = firstPadding(min(len(p), maxContent))
	}
	b = c.s.pool.block(size + padding)
	b.first = o.half.seq
	kind := byte(recordData)
	if end {
		kind = recordEnd
	}
	for range 2 {
		n := min(len(p)-took, maxContent)
		if b.data, err = o.half.seal(b.data, kind, p[took:took+n], padding); err != nil {
			return nil, 0, fmt.Errorf("write to a sealed stream: %w", err)
		}
		took += n
		padding = 0
		if took == len(p) {
			break
		}
	}
	b.end = o.half.seq
	return b, took, nil
}

// reserve takes n bytes of the bounds, or reports that there is no room. A
// stream always may have one block. Needs mu.
func (c *Conn) reserve(n int) bool {
	if c.out.held > 0 && (c.out.held+n > streamLog || c.s.logged.Load()+int64(n) > sessionLog) {
		return false
	}
	c.hold(n)
	return true
}

// hold needs mu.
func (c *Conn) hold(n int) {
	c.out.held += n
	c.s.logged.Add(int64(n))
}

// unhold gives bytes back and wakes who waits for them. Needs mu.
func (c *Conn) unhold(n int) {
	c.out.held -= n
	wake(c.writable)
	if left := c.s.logged.Add(int64(-n)); left+int64(n) > sessionLog-bufferLen {
		c.s.wakeWriters()
	}
}

// take returns the next block for a carrier, or nil. fin says that nothing more
// will come. Needs mu.
func (c *Conn) take(k *carrier) (b *block, fin bool) {
	o := &c.out
	if o.acked == stopped {
		return nil, true
	}
	for o.todo < o.blocks.len() && o.blocks.all()[o.todo].by != nil {
		o.todo++
	}
	if o.todo < o.blocks.len() {
		b := o.blocks.all()[o.todo]
		if len(c.carriers) > 1 && !k.pace.room(len(b.data)) {
			return nil, false
		}
		b.by = k
		b.writers++
		o.todo++
		k.pace.send(len(b.data))
		if k.link != nil {
			k.link.bytesOut.Add(int64(len(b.data)))
		}
		return b, false
	}
	return nil, o.last > 0 && (o.acked >= o.last || o.todo == o.blocks.len() && len(c.carriers) == 1)
}

// wrote ends the use of a block that take returned. Needs mu.
func (c *Conn) wrote(b *block) {
	b.writers--
	if b.acked && b.writers == 0 {
		c.s.pool.free(b)
	}
}

// acknowledge takes over the other endpoint's word that it has all records
// before next. Needs mu.
func (c *Conn) acknowledge(next uint64) error {
	o := &c.out
	if o.acked == stopped || next <= o.acked || c.dead.Load() != nil {
		return nil
	}
	if n := o.blocks.len(); next != stopped && (n == 0 || next > o.blocks.all()[n-1].end) {
		return fmt.Errorf("%w: it acknowledges records that were never sent", ErrFrame)
	}
	o.acked = next
	c.futile = 0
	n, freed := 0, 0
	for o.blocks.len() > 0 && o.blocks.all()[0].end <= next {
		b := o.blocks.pop()
		freed += b.cost()
		if b.acked = true; b.writers == 0 {
			c.s.pool.free(b)
		}
		n++
	}
	o.todo = max(0, o.todo-n)
	if freed > 0 {
		c.unhold(freed)
	}
	if next == stopped || o.done() {
		wake(c.writable)
		c.wakeCarriers()
	}
	return nil
}

// abandon gives back the blocks that a lost carrier had taken. Needs mu.
func (c *Conn) abandon(k *carrier) {
	o := &c.out
	for i, b := range slices.Backward(o.blocks.all()) {
		if b.by == k {
			b.by = nil
			o.todo = min(o.todo, i)
		}
	}
}
