package e2e

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// closeTimeout bounds how long Close waits for room for the end of stream.
	closeTimeout = 5 * time.Second
	// finTimeout is how long a Read waits for the FIN when the end of a half
	// was verified.
	finTimeout = 10 * time.Second
)

// bufferLen is the one size of record buffers: two full records with a preface
// before them, so that a Write of 32 KiB is one Write of the hop.
const bufferLen = 33 << 10

type buffer [bufferLen]byte

// bufferPool lends record buffers: to a Write while it runs, to a read half
// while a Read runs and as long as bytes that were read wait in it.
type bufferPool struct{ pool sync.Pool }

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new(buffer) }}}
}

func (p *bufferPool) get() *buffer  { return p.pool.Get().(*buffer) }
func (p *bufferPool) put(b *buffer) { p.pool.Put(b) }

// Conn is one sealed stream, a net.Conn. Read returns io.EOF only when the
// other endpoint ended its half and everything before was verified. Its
// methods may be called beside each other. A Conn must be closed or reset.
type Conn struct {
	// Set at construction.
	st Stream
	s  *session

	rmu sync.Mutex // held by Read
	r   reader
	wmu sync.Mutex // held by Write and CloseWrite
	w   writer

	dead   atomic.Pointer[error] // why neither half works any more; set once
	closed atomic.Bool           // Close or Reset was called

	mu     sync.Mutex
	readBy time.Time // the caller's read deadline
	finBy  time.Time // when the FIN has to be there; zero unless a Read waits for it or did
}

// openConn makes the opener's end of stream id on st.
func openConn(s *session, st Stream, id uint64) (*Conn, error) {
	name, out, preface, err := openHalf(s.suite, s.secret, id)
	if err != nil {
		return nil, err
	}
	c := &Conn{st: st, s: s}
	c.w = writer{st: st, pool: s.pool, half: out, preface: preface}
	c.r = reader{st: st, pool: s.pool, awaitFIN: c.awaitFIN, start: func(b []byte) (*half, error) {
		return verifyAccept(name, s.secret, b)
	}}
	return c, nil
}

// acceptConn makes the acceptor's end of a stream whose preface was read from
// st and verified.
func acceptConn(s *session, st Stream, name *streamName, in *half) (*Conn, error) {
	out, preface, err := acceptHalf(name, s.secret)
	if err != nil {
		return nil, err
	}
	c := &Conn{st: st, s: s}
	c.w = writer{st: st, pool: s.pool, half: out, preface: preface}
	c.r = reader{st: st, pool: s.pool, half: in, awaitFIN: c.awaitFIN}
	return c, nil
}

// Read reads content. After an error other than a timeout every Read returns
// that error; a timeout loses nothing, and a later deadline resumes. Bytes of p
// beyond the returned count may be overwritten.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if err := c.dead.Load(); err != nil {
		return 0, *err
	}
	n, err := c.r.read(p)
	if err != nil {
		return 0, c.readError(err)
	}
	c.s.bytesIn.Add(int64(n))
	return n, nil
}

// readError decides what an error of the read half means for the stream.
func (c *Conn) readError(err error) error {
	if dead := c.dead.Load(); dead != nil {
		return *dead // the hop's error is only its echo
	}
	if isTimeout(err) {
		c.mu.Lock()
		late := !c.finBy.IsZero() && !time.Now().Before(c.finBy)
		c.mu.Unlock()
		if !late {
			return err
		}
		err = ErrTruncated
		c.r.fail(err)
	}
	c.r.release()
	if isTampered(err) {
		c.kill(err, wire.CodeTampered)
		c.s.attacked(err)
	}
	return err
}

// awaitFIN runs before each read of the hop that can only bring the FIN.
func (c *Conn) awaitFIN() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finBy = time.Now().Add(finTimeout)
	c.applyReadDeadline()
}

// applyReadDeadline needs mu.
func (c *Conn) applyReadDeadline() error {
	t := c.readBy
	if !c.finBy.IsZero() && (t.IsZero() || c.finBy.Before(t)) {
		t = c.finBy
	}
	return c.st.SetReadDeadline(t)
}

// Write seals p and hands it to the hop before it returns; nothing is held
// back for later Writes. Callers do best with 4 to 32 KiB at a time. The first
// Write of a stream announces it to the other endpoint, also if p is empty.
// After an error, timeouts included, the write half is unusable: what was
// handed over is then unknown to the byte, and n counts only what surely was.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.dead.Load(); err != nil {
		return 0, *err
	}
	n, err := c.w.write(p)
	c.s.bytesOut.Add(int64(n))
	return n, c.writeError(err)
}

// CloseWrite ends the write half: the other endpoint reads io.EOF after what
// was written. It waits for a running Write.
func (c *Conn) CloseWrite() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.dead.Load(); err != nil {
		return *err
	}
	return c.writeError(c.w.end())
}

func (c *Conn) writeError(err error) error {
	if dead := c.dead.Load(); err != nil && dead != nil {
		return *dead
	}
	return err
}

// Close ends the write half as CloseWrite does, unless that was done, and
// reads no further. It waits at most 5 s for room for the end. A stream whose
// end cannot be written, or that a Write is running on, is reset, and the
// error says why.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	defer c.s.remove(c)
	if c.dead.Load() != nil {
		c.quiesce()
		return nil
	}
	err := errWriteRuns
	if c.wmu.TryLock() {
		c.st.SetWriteDeadline(time.Now().Add(closeTimeout))
		err = c.w.end()
		c.wmu.Unlock()
	}
	if err != nil {
		c.kill(net.ErrClosed, wire.CodeCancelled)
		err = fmt.Errorf("close a sealed stream: %w", err)
	} else {
		closed := net.ErrClosed
		c.dead.CompareAndSwap(nil, &closed)
		c.st.StopRead()
	}
	c.quiesce()
	return err
}

// Reset aborts both halves; the other endpoint's Reads and Writes fail. The
// code is a hint that travels unsealed, one of the endpoints' codes.
func (c *Conn) Reset(code wire.Code) {
	c.closed.Store(true)
	c.kill(net.ErrClosed, code)
	c.quiesce()
	c.s.remove(c)
}

// kill makes both halves fail with err and resets the stream. It does not wait
// for a running Read or Write to return.
func (c *Conn) kill(err error, code wire.Code) {
	if c.dead.CompareAndSwap(nil, &err) {
		c.st.Reset(code)
	}
}

// quiesce waits until no Read or Write runs on a dead stream; they return at
// once. From then on no byte is handed out or accepted.
func (c *Conn) quiesce() {
	c.rmu.Lock()
	c.r.release()
	c.rmu.Unlock()
	c.wmu.Lock()
	c.wmu.Unlock() //lint:ignore SA2001 the lock is the wait
}

// errWriteRuns is why a Close has to cut a stream.
var errWriteRuns = errors.New("a write was still running")

// Peer returns the pin of the other endpoint.
func (c *Conn) Peer() Pin { return c.s.peer }

// LocalAddr returns this endpoint's pin as an address.
func (c *Conn) LocalAddr() net.Addr { return addr(c.s.self) }

// RemoteAddr returns the other endpoint's pin as an address.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.s.peer) }

// SetReadDeadline sets the deadline of running and future Reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	return c.applyReadDeadline()
}

// SetWriteDeadline sets the deadline of running and future Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.st.SetWriteDeadline(t) }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}
