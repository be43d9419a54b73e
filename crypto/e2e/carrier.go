package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Bounds of carriers.
const (
	// maxCarriers is how many carriers one stream has at once: eight, and as
	// many that take their place.
	maxCarriers = 16
	// lingerFor is how long the end of a carrier may take when all was
	// delivered.
	lingerFor = 10 * time.Second
	// ackLate is how long the last acknowledgment may take before another
	// carrier asks for it.
	ackLate = time.Second
)

// carrier is a stream through the relay that carries records of a sealed
// stream, both halves. It has two goroutines: send, which writes what the log
// has as soon as the hop has room, and receive. A carrier that fails loses
// nothing: the log still has what was under way.
type carrier struct {
	// Set at construction.
	c       *Conn
	st      Stream
	link    *Link
	number  uint32        // among the stream's carriers
	preface []byte        // goes out first
	prompt  bool          // preface does not wait for a record
	await   bool          // nothing is sent before the other endpoint's preface
	more    chan struct{} // wakes send; one place, because there is one sender
	drained chan struct{} // wakes receive; likewise
	ready   chan struct{} // closed when the other endpoint's preface was verified
	over    chan struct{} // closed when the carrier is lost or at its end

	// Guarded by c.mu.
	heard   uint64 // the number that follows the highest that came
	came    uint64 // bytes of records that came
	pace    pace   // of what is sent
	sentFIN bool
	seenFIN bool
	lost    bool
}

// attach adds a carrier to a stream and starts it. If it returns an error, st
// is still the caller's. Needs mu.
func (c *Conn) attach(k *carrier) error {
	if dead := c.dead.Load(); dead != nil {
		return *dead
	}
	if len(c.carriers) >= maxCarriers {
		return errBusy
	}
	k.c = c
	k.more, k.drained = make(chan struct{}, 1), make(chan struct{}, 1)
	k.ready, k.over = make(chan struct{}), make(chan struct{})
	k.pace = newPace()
	if !c.s.run(k.send, k.receive) {
		return c.s.ending()
	}
	c.carriers = append(c.carriers, k)
	if c.orphan != nil {
		c.orphan.Stop()
		c.orphan = nil
	}
	if c.gap != nil {
		c.gap.Reset(resumeWithin) // what is missing may come over this one
	}
	return nil
}

// send writes the preface and then block after block.
func (k *carrier) send() {
	c := k.c
	if k.prompt {
		if _, err := k.st.Write(k.preface); err != nil {
			c.lose(k, err)
			return
		}
		k.preface = nil
	}
	if k.await {
		select {
		case <-k.ready:
		case <-k.over:
			return
		}
	}
	for {
		c.mu.Lock()
		if k.lost {
			c.mu.Unlock()
			return
		}
		if dead := c.dead.Load(); dead != nil && !c.delivered.Load() {
			c.mu.Unlock()
			c.lose(k, *dead)
			return
		}
		b, fin := c.take(k)
		c.mu.Unlock()
		switch {
		case b != nil:
			data := b.data
			if k.preface != nil {
				data = append(k.preface, data...)
				k.preface = nil
			}
			_, err := k.st.Write(data)
			c.mu.Lock()
			c.wrote(b)
			c.mu.Unlock()
			if err != nil {
				c.lose(k, fmt.Errorf("write to a sealed stream: %w", err))
				return
			}
		case fin:
			k.finish()
			return
		default:
			select {
			case <-k.more:
			case <-k.over:
				return
			}
		}
	}
}

// finish ends the sending direction.
func (k *carrier) finish() {
	c := k.c
	if k.preface != nil { // the other endpoint reads nothing, but has to see the stream's end
		k.st.Write(k.preface)
	}
	if err := k.st.CloseWrite(); err != nil {
		c.lose(k, fmt.Errorf("end a sealed stream: %w", err))
		return
	}
	c.mu.Lock()
	k.sentFIN = true
	c.mu.Unlock()
	c.detach(k)
}

// receive reads records and puts what they open to into the stream's inbox.
func (k *carrier) receive() {
	err := k.read()
	c := k.c
	if err == io.EOF {
		c.mu.Lock()
		k.seenFIN = true
		whole := c.in.stopped || c.in.last > 0 && c.in.next == c.in.last || c.dead.Load() != nil
		c.mu.Unlock()
		if whole {
			c.detach(k)
			return
		}
		err = ErrTruncated
	}
	if isTampered(err) && k.finished() {
		err = ErrTrailing
	}
	if isTampered(err) && err != ErrTruncated {
		c.kill(err, wire.CodeTampered)
		c.s.attacked(err)
	}
	if err == errWindow {
		c.kill(err, wire.CodeRefused)
	}
	c.lose(k, err)
}

// finished reports whether the half's last record came over this carrier, and no
// other may follow.
func (k *carrier) finished() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.alone() && k.c.in.last > 0 && k.heard == k.c.in.last
}

// read reads records until the carrier ends; io.EOF is the other end's FIN.
func (k *carrier) read() error {
	r := recordReader{st: k.st, pool: k.c.s.pool}
	defer r.release()
	if k.c.opener {
		if err := k.greet(&r); err != nil {
			return err
		}
	}
	var nonce [nonceLen]byte
	for {
		rec, err := r.record()
		if err != nil {
			return err
		}
		if err := k.take(&nonce, rec); err != nil {
			return err
		}
		r.next()
		if err := k.rest(); err != nil {
			return err
		}
	}
}

// greet reads and verifies the acceptor's preface, at the opener.
func (k *carrier) greet(r *recordReader) error {
	n := acceptPrefaceLen
	kind := byte(kindSealed)
	if k.number > 0 {
		n += resumptionLen
		kind = kindResumed
	}
	if err := r.need(n); err != nil {
		return err
	}
	b := r.buf[r.i : r.i+n]
	if b[0] != kind {
		return ErrSpliced
	}
	c := k.c
	h, err := verifyAccept(c.name, c.s.secret, b)
	if err != nil {
		return err
	}
	var next uint64
	if kind == kindResumed {
		at, err := verifyResumption(b[acceptPrefaceLen:], h.resume, k.link.binding)
		if err != nil || at.number != k.number {
			return ErrSpliced
		}
		next = at.next
	}
	o, err := newOpening(c.s.suite, h.secret)
	if err != nil {
		return err
	}
	r.size = n
	first := bytes.Clone(b[1:acceptPrefaceLen])
	r.next()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opening == nil {
		c.opening, c.replied = o, first
	} else if !bytes.Equal(c.replied, first) {
		return ErrSpliced
	}
	close(k.ready)
	return c.acknowledge(next)
}

// take verifies a record and hands its content to the stream.
func (k *carrier) take(nonce *[nonceLen]byte, rec []byte) error {
	c := k.c
	seq := binary.BigEndian.Uint64(rec) & (1<<48 - 1)
	c.mu.Lock()
	opening := c.opening
	alone := c.alone()
	inOrder := !alone || seq == k.heard
	trailing := c.in.last > 0 && (seq >= c.in.last || alone && k.heard == c.in.last)
	done := c.in.stopped || c.dead.Load() != nil
	if !trailing {
		k.heard = max(k.heard, seq+1)
	}
	k.came += uint64(len(rec))
	c.in.fresh = !alone
	if !c.in.here(seq) {
		c.s.arrived.Add(int64(len(rec)))
		if k.link != nil {
			k.link.bytesIn.Add(int64(len(rec)))
		}
	}
	c.mu.Unlock()
	switch {
	case done:
		return nil
	case trailing:
		return ErrTrailing
	case !inOrder:
		return errRecord
	}
	ch := c.s.pool.chunk(len(rec) - recordHeaderLen - tagLen)
	kind, content, err := opening.open(nonce, ch.b, rec)
	if err != nil {
		return err
	}
	ch.b, ch.seq, ch.end = content, seq, kind == recordEnd
	if len(content) == 0 {
		c.s.pool.done(&ch)
		ch.seq, ch.end = seq, kind == recordEnd
	}
	return c.deliver(ch)
}

// alone reports whether the stream has had no other carrier than one, so that
// its records come in order and once. Needs mu.
func (c *Conn) alone() bool {
	if c.opener {
		return c.opened == 1
	}
	return c.seen.next == 1 // numbers are counted from 0
}

// deliver puts verified content into the inbox.
func (c *Conn) deliver(ch chunk) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := &c.in
	if in.stopped || c.dead.Load() != nil || in.here(ch.seq) {
		c.s.pool.done(&ch)
		c.oweAck(0)
		return nil
	}
	c.futile = 0
	if ch.seq != in.next {
		if cost := ch.cost(); in.ahead+cost > maxAhead || c.s.unread.Load()+int64(cost) > sessionAhead {
			return errWindow
		}
	}
	err := in.put(ch)
	c.charge()
	if err != nil {
		return err
	}
	if in.queue.len() > 0 || in.ended() {
		wake(c.readable)
	}
	c.watchGap()
	c.oweAck(0)
	return nil
}

// watchGap bounds how long a record may be missing while later ones are here:
// a carrier that was lost is replaced long before. Needs mu.
func (c *Conn) watchGap() {
	next := c.in.next
	if c.gap != nil && (len(c.in.early) == 0 || c.gapAt != next) {
		c.gap.Stop()
		c.gap = nil
	}
	if c.gap != nil || len(c.in.early) == 0 {
		return
	}
	c.gapAt = next
	c.gap = time.AfterFunc(resumeWithin, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.dead.Load() == nil && len(c.in.early) > 0 && c.in.next == next && len(c.carriers) > 0 {
			c.die(ErrTruncated, wire.CodeTimeout)
		}
	})
}

// rest waits while the reader has more than enough to read.
func (k *carrier) rest() error {
	c := k.c
	for {
		c.mu.Lock()
		full := c.in.queued > readAhead && !c.in.stopped && c.dead.Load() == nil
		c.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-k.drained:
		case <-k.over:
			return net.ErrClosed
		}
	}
}

// lose ends a carrier that failed. What it had taken goes out over another one:
// elsewhere, if the relay says that the agent has used up what it forwards.
func (c *Conn) lose(k *carrier, err error) {
	if c.opener && k.link != nil && isSpent(err) {
		k.link.end(fmt.Errorf("the relay has ended a stream: %w", err))
	}
	c.mu.Lock()
	if k.lost {
		c.mu.Unlock()
		return
	}
	if err != errReplaced && (k.number > 0 || c.lastLoss == nil || !errors.Is(err, ErrTruncated)) {
		c.lastLoss = err
	}
	c.abandon(k)
	c.drop(k)
	c.mu.Unlock()
	k.st.Reset(wire.CodeCancelled)
	c.settle()
	c.retire()
}

// detach ends a carrier both directions of which came to their end.
func (c *Conn) detach(k *carrier) {
	c.mu.Lock()
	if k.lost || !k.sentFIN || !k.seenFIN {
		c.mu.Unlock()
		return
	}
	c.abandon(k) // a FIN shows nothing
	c.drop(k)
	c.mu.Unlock()
	c.settle()
	c.retire()
}

// drop takes a carrier away and looks for another one if the stream needs it.
// Needs mu.
func (c *Conn) drop(k *carrier) {
	k.lost = true
	close(k.over)
	c.carriers = slices.DeleteFunc(slices.Clone(c.carriers), func(o *carrier) bool { return o == k })
	c.wakeCarriers()
	if c.dead.Load() != nil || c.complete() {
		return
	}
	if c.opener && len(c.carriers) > 0 { // else the next one says so
		c.s.sayLost(c.name.id, k.number)
	}
	if c.served() {
		return
	}
	pause := ackLate // in order: only an acknowledgment is missing
	if !k.sentFIN || !k.seenFIN {
		if len(c.carriers) == 0 && (k.link == nil || k.link.reason() == nil) {
			c.futile++ // once for all that a path had
			if c.opener && c.futile >= maxFutile {
				c.die(c.lossError(), wire.CodeTimeout)
				return
			}
		}
		pause = c.patience()
	}
	if len(c.carriers) == 0 && c.orphan == nil {
		c.orphan = time.AfterFunc(resumeWithin, c.starve)
	}
	if c.opener && !c.mending {
		c.mending = c.s.run(func() { c.mend(pause) })
	}
}

// starve ends a stream that has had no carrier for too long.
func (c *Conn) starve() {
	defer c.retire()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.carriers) == 0 && !c.complete() {
		c.die(c.lossError(), wire.CodeTimeout)
	}
}

// lossError is what a stream that got no carrier any more fails with. Needs mu.
func (c *Conn) lossError() error {
	err := c.lastLoss
	if errors.Is(err, io.EOF) || err == nil {
		err = ErrTruncated
	}
	if errors.Is(err, ErrTruncated) {
		return err
	}
	return fmt.Errorf("a sealed stream broke off and could not be resumed: %w", err)
}

// linger bounds what is left of a carrier of a finished stream.
func (k *carrier) linger() { k.st.SetDeadline(time.Now().Add(lingerFor)) }
