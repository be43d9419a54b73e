package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// resumeWithin is how long a stream or a session waits for a carrier or a link
// when it has none.
const resumeWithin = 60 * time.Second

// Conn is one sealed stream, a net.Conn. Read returns io.EOF only when the
// other endpoint ended its half and everything before was verified. It
// outlives the relay connection that carries it. Its methods may be called
// beside each other. A Conn must be closed or reset.
type Conn struct {
	// Set at construction.
	s        *session
	name     *streamName
	opener   bool
	urgency  wire.Urgency  // of the carriers that the opener opens
	preface  []byte        // of this side's half, on the first carrier
	resume   []byte        // what this side's prefaces of further carriers are made with
	theirs   []byte        // what the opener's are verified with, at the acceptor
	readable chan struct{} // wakes Read; sent to without blocking; one place, because there is one reader
	writable chan struct{} // wakes Write; likewise
	gone     chan struct{} // closed when dead is set

	rmu  sync.Mutex // held by Read
	head chunk      // being read
	wmu  sync.Mutex // held by Write and CloseWrite

	rd, wd    deadline
	dead      atomic.Pointer[error] // why neither half works any more; set once
	closed    atomic.Bool           // Close or Reset was called
	delivered atomic.Bool           // dead, because nothing is left to be delivered

	mu       sync.Mutex
	in       inbox
	opening  *opening // of the other endpoint's half; nil at the opener before the reply's preface
	replied  []byte   // the acceptor's preface: made at the acceptor, read at the opener
	out      outbox
	carriers []*carrier
	opened   uint32      // number of the next carrier, at the opener
	seen     smallWindow // numbers of carriers, at the acceptor
	lowest   uint32      // carriers with lower numbers are gone, as the opener says
	forgone  smallWindow // numbers of carriers that it has lost before they came
	charged  int         // what charge has counted
	orphan   *time.Timer // runs while there is no carrier
	gap      *time.Timer // runs while record gapAt is missing
	gapAt    uint64
	lastLoss error // why the latest carrier was lost
	futile   int   // carriers in a row that brought nothing
	mending  bool  // the opener is looking for a carrier
	finished bool  // nothing of the stream is left to be done

	// At the opener, while a stream may need several carriers:
	pressed   time.Time // when its log was found full, here or at the acceptor
	laid      uint64    // the session's layout that its carriers follow
	spreading bool      // spread runs
	saidFull  time.Time // at the acceptor: when the opener was told that the log is full
}

// newConn makes a stream without carriers. mine is this side's half, theirs the
// other one's, which the opener does not know yet.
func newConn(s *session, name *streamName, preface []byte, mine, theirs sealedHalf) (*Conn, error) {
	c := &Conn{
		s: s, name: name, opener: theirs.secret == nil, preface: preface, resume: mine.resume, theirs: theirs.resume,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	var err error
	if c.out.half, err = newHalf(s.suite, mine.secret); err != nil || c.opener {
		return c, err
	}
	c.opening, err = newOpening(s.suite, theirs.secret)
	return c, err
}

// openConn makes the opener's end of stream id with st as its first carrier. st
// is the caller's if it fails. The session may have at most limit streams. urgency
// is that of st, and of the carriers that follow it.
func openConn(s *session, l *Link, st Stream, id uint64, limit int, urgency wire.Urgency) (*Conn, error) {
	name, half, preface, err := openHalf(s.suite, s.secret, id)
	if err != nil {
		return nil, err
	}
	c, err := newConn(s, name, preface, half, sealedHalf{})
	if err != nil {
		return nil, err
	}
	c.opened, c.urgency = 1, urgency
	if err := s.add(c, limit); err != nil {
		return nil, err
	}
	return c, c.begin(&carrier{st: st, link: l, preface: preface})
}

// acceptConn makes the acceptor's end of a stream, without a carrier. theirs is
// the opener's half.
func acceptConn(s *session, name *streamName, theirs sealedHalf) (*Conn, error) {
	half, preface, err := acceptHalf(name, s.secret)
	if err != nil {
		return nil, err
	}
	return newConn(s, name, preface, half, theirs)
}

// begin adds the stream's first carrier.
func (c *Conn) begin(k *carrier) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opener && !c.seen.use(0) {
		return ErrReplay
	}
	if c.lowest > 0 || c.forgone.used(0) {
		return errOvertaken
	}
	return c.attach(k)
}

// wake sends to a channel that has one place and one reader.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read reads content. After an error other than a timeout every Read returns
// that error; a timeout loses nothing, and a later deadline resumes.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for {
		if err := c.failure(); err != nil {
			return 0, err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if n := c.readSome(p); n > 0 {
			c.s.bytesIn.Add(int64(n))
			return n, nil
		}
		c.mu.Lock()
		waiting, ended := c.in.queue.len() > 0, c.in.ended()
		c.mu.Unlock()
		if waiting {
			continue
		}
		if ended {
			return 0, io.EOF
		}
		select {
		case <-c.readable:
		case <-c.gone:
		case <-c.rd.done():
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// failure is why nothing can be read or written any more.
func (c *Conn) failure() error {
	if err := c.dead.Load(); err != nil {
		return *err
	}
	if c.closed.Load() {
		return net.ErrClosed
	}
	return nil
}

// readSome copies what is there. Needs rmu.
func (c *Conn) readSome(p []byte) (n int) {
	for n < len(p) {
		if len(c.head.b) == 0 {
			c.s.pool.done(&c.head)
			if !c.nextChunk() {
				return n
			}
		}
		k := copy(p[n:], c.head.b)
		c.head.b = c.head.b[k:]
		n += k
	}
	if len(c.head.b) == 0 {
		c.s.pool.done(&c.head)
		c.mu.Lock()
		c.in.held = false
		c.oweAck(0)
		c.mu.Unlock()
	}
	return n
}

// nextChunk moves the queue's first chunk to head. Needs rmu.
func (c *Conn) nextChunk() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.held = false
	if c.in.queue.len() == 0 {
		c.oweAck(0)
		return false
	}
	full := c.in.queued > readAhead
	c.head = c.in.shift()
	c.charge()
	c.in.held, c.in.reading = true, c.head.seq
	if full && c.in.queued <= readAhead {
		c.drained()
	}
	c.oweAck(len(c.head.b))
	return true
}

// Write seals p and takes it over: it returns when all of p is in the stream's
// log, from which it reaches the other endpoint over this carrier or another
// one. Nothing is held back for later Writes. Callers do best with 4 to 32 KiB
// at a time. The first Write of a stream announces it to the other endpoint,
// also if p is empty. A timeout loses nothing: n counts what was taken.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.failure(); err != nil {
		return 0, err
	}
	if c.out.end {
		return 0, errWriteEnded
	}
	if c.wd.passedBy() {
		return 0, os.ErrDeadlineExceeded
	}
	if len(p) == 0 && c.out.half.seq > 0 {
		return 0, nil
	}
	for {
		took, err := c.writeBlock(p, false)
		n += took
		c.s.bytesOut.Add(int64(took))
		if err != nil {
			return n, err
		}
		if p = p[took:]; len(p) == 0 {
			return n, nil
		}
	}
}

// writeBlock waits for room and puts the next block of p into the log. Needs wmu.
func (c *Conn) writeBlock(p []byte, end bool) (int, error) {
	for !end {
		c.mu.Lock()
		unread, room := c.out.acked == stopped, c.reserve(bufferLen)
		c.mu.Unlock()
		if err := c.dead.Load(); err != nil {
			return 0, *err
		}
		if unread {
			return 0, errUnread
		}
		if room {
			break
		}
		c.full()
		select {
		case <-c.writable:
		case <-c.gone:
		case <-c.wd.done():
			return 0, os.ErrDeadlineExceeded
		}
	}
	b, took, err := c.sealBlock(p, end)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if !end {
			c.unhold(bufferLen)
		}
		c.die(err, wire.CodeCancelled)
		return 0, err
	}
	c.hold(b.cost())
	if end {
		c.out.last = b.end
	} else {
		c.unhold(bufferLen)
	}
	if dead := c.dead.Load(); dead != nil {
		c.unhold(b.cost())
		return 0, *dead
	}
	c.out.blocks.push(b)
	c.wakeCarriers()
	return took, nil
}

// wakeCarriers needs mu.
func (c *Conn) wakeCarriers() {
	for _, k := range c.carriers {
		wake(k.more)
	}
}

// drained wakes carriers that wait for a reader. Needs mu.
func (c *Conn) drained() {
	for _, k := range c.carriers {
		wake(k.drained)
	}
}

// CloseWrite ends the write half: the other endpoint reads io.EOF after what
// was written. It waits for a running Write, and for nothing else: the end is
// delivered like what was written.
func (c *Conn) CloseWrite() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.failure(); err != nil {
		return err
	}
	return c.endWrite()
}

// endWrite needs wmu.
func (c *Conn) endWrite() error {
	if c.out.end {
		return nil
	}
	c.out.end = true
	_, err := c.writeBlock(nil, true)
	return err
}

// Close ends the write half as CloseWrite does, unless that was done, and
// reads no further. What was written is delivered after it, while the session
// lasts. A stream on which a Write is running is reset, and the error says so.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	if c.dead.Load() != nil {
		c.quiesce()
		c.retire()
		return nil
	}
	if !c.wmu.TryLock() {
		c.kill(net.ErrClosed, wire.CodeCancelled)
		c.quiesce()
		c.retire()
		return fmt.Errorf("close a sealed stream: a write was still running")
	}
	err := c.endWrite()
	c.wmu.Unlock()
	c.mu.Lock()
	c.stopReading()
	c.mu.Unlock()
	c.settle()
	c.retire()
	if err != nil && c.dead.Load() == nil {
		return fmt.Errorf("close a sealed stream: %w", err)
	}
	return nil
}

// stopReading drops what has arrived and asks for no more. Needs mu.
func (c *Conn) stopReading() {
	if c.in.stopped {
		return
	}
	c.in.stopped = !c.in.ended()
	for _, ch := range c.in.queue.all() {
		c.s.pool.done(&ch)
	}
	c.dropContent()
	c.drained()
	wake(c.readable)
	c.oweAck(0)
}

// dropContent gives up what nobody will read. Needs mu.
func (c *Conn) dropContent() {
	c.in.queue, c.in.queued = fifo[chunk]{}, 0
	c.in.early, c.in.ahead = nil, 0
	c.charge()
}

// charge counts what the inbox holds, beyond what each stream may, for the
// session. Needs mu.
func (c *Conn) charge() {
	excess := c.in.ahead + max(0, c.in.queued-readAhead)
	c.s.unread.Add(int64(excess - c.charged))
	c.charged = excess
}

// Reset aborts both halves; the other endpoint's Reads and Writes fail. The
// code is one of the endpoints' codes.
func (c *Conn) Reset(code wire.Code) {
	c.closed.Store(true)
	c.kill(net.ErrClosed, code)
	c.quiesce()
	c.retire()
}

// kill makes both halves fail with err, tells the other endpoint code, and
// ends the carriers. It does not wait for a running Read or Write to return.
func (c *Conn) kill(err error, code wire.Code) {
	c.mu.Lock()
	c.die(err, code)
	c.mu.Unlock()
}

// die is kill under mu. Of a stream that is dead already, a session that has
// ended does not wait for the carriers.
func (c *Conn) die(err error, code wire.Code) {
	switch {
	case c.dead.Load() == nil:
		c.s.cancelLater(c.name.id, code)
		c.end(err, code)
	case c.s.ended.Load():
		for _, k := range c.carriers {
			k.st.Reset(code)
		}
	}
}

// leave ends a stream that the other endpoint no longer has. If that was in
// order and all that it wrote is here, this can still be read.
func (c *Conn) leave(code wire.Code) {
	c.mu.Lock()
	if code == wire.CodeNone && c.in.ended() {
		c.acknowledge(stopped)
	} else if c.dead.Load() == nil {
		if code == wire.CodeNone {
			code = wire.CodeCancelled
		}
		c.end(cancelledError(code), wire.CodeCancelled)
	}
	c.mu.Unlock()
	c.settle()
	c.retire()
}

// end needs mu.
func (c *Conn) end(err error, code wire.Code) {
	c.dead.Store(&err)
	close(c.gone)
	c.release()
	for _, k := range c.carriers {
		k.st.Reset(code)
	}
}

// release gives up what a dead or finished stream holds. Needs mu.
func (c *Conn) release() {
	freed := 0 // a Write that is sealing gives back what it has reserved
	for _, b := range c.out.blocks.all() {
		freed += b.cost()
		if b.acked = true; b.writers == 0 {
			c.s.pool.free(b)
		}
	}
	c.out.blocks, c.out.todo = fifo[*block]{}, 0
	if freed > 0 {
		c.unhold(freed)
	}
	c.dropContent()
	c.drained()
	c.wakeCarriers()
	for _, t := range []*time.Timer{c.orphan, c.gap} {
		if t != nil {
			t.Stop()
		}
	}
}

// quiesce waits until no Read or Write runs on a dead stream; they return at
// once. From then on no byte is handed out or accepted.
func (c *Conn) quiesce() {
	c.rmu.Lock()
	c.head = chunk{}
	c.rmu.Unlock()
	c.wmu.Lock()
	c.wmu.Unlock() //lint:ignore SA2001 the lock is the wait
}

// settle finishes a closed stream of which nothing is left to be delivered or
// to arrive.
func (c *Conn) settle() {
	if !c.closed.Load() {
		return
	}
	c.mu.Lock()
	done := c.out.done() && (c.in.stopped || c.in.ended()) && c.dead.Load() == nil
	if done {
		closed := error(net.ErrClosed)
		c.delivered.Store(true)
		c.dead.Store(&closed)
		close(c.gone)
		c.release()
		for _, k := range c.carriers {
			k.linger()
		}
	}
	c.mu.Unlock()
	if done {
		c.retire()
	}
}

// retire forgets a dead stream once its carriers have ended.
func (c *Conn) retire() {
	c.mu.Lock()
	left := len(c.carriers) > 0 || c.finished || c.dead.Load() == nil || !c.closed.Load()
	if !left {
		c.finished = true
	}
	late := !c.opener && !c.seen.used(0)
	c.mu.Unlock()
	if !left {
		c.s.remove(c, late)
	}
}

// Peer returns the pin of the other endpoint.
func (c *Conn) Peer() Pin { return c.s.peer }

// LocalAddr returns this endpoint's pin as an address.
func (c *Conn) LocalAddr() net.Addr { return addr(c.s.self) }

// RemoteAddr returns the other endpoint's pin as an address.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.s.peer) }

// SetReadDeadline sets the deadline of running and future Reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.rd.set(t)
	return nil
}

// SetWriteDeadline sets the deadline of running and future Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.wd.set(t)
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	c.rd.set(t)
	c.wd.set(t)
	return nil
}
