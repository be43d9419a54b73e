package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// chunk holds received bytes: b[r:w] are unread.
type chunk struct {
	r, w int
	b    [maxFrame]byte
}

// fullChunk is from how many bytes on a frame gets a chunk to itself. Smaller
// ones fill up the chunk before, so that a window of them takes hardly more
// memory than its bytes, however a sender cuts them.
const fullChunk = maxFrame * 15 / 16

// tcpStream is a stream of a tcpSession, which guards its state.
type tcpStream struct {
	session *tcpSession
	id      uint32
	// over is done when the write half is, with what a Write would return.
	over context.Context
	end  context.CancelCauseFunc

	// One pending is enough: sent to, without waiting, when a running Read or
	// Write has to look again. Nobody closes them.
	readable, writable chan struct{}

	// Guarded by session.mu. The read half:
	chunks   []*chunk
	window   int  // bytes that the other end may still send
	consumed int  // bytes that were read and not given back to the window yet
	fin      bool // the other end's half is over
	readErr  error
	readBy   time.Time
	// The write half:
	pending  []byte // what the running Write has not handed over yet
	credit   int64  // bytes that may still be sent; may be negative until SETTINGS come
	closed   bool   // CloseWrite was called
	finished bool   // the last frame of the half is sent, or not needed
	writeErr error
	writeBy  time.Time
	// What is owed to the other end:
	oweStop, oweReset, oweFin bool
	code                      wire.Code // of the reset
	inControl, inData         bool      // waits in the session's queues
	accepted                  bool      // by AcceptStream, or opened here
	forgotten                 bool      // no longer in the session's streams
}

func (s *tcpStream) Read(p []byte) (int, error) {
	for {
		n, by, err := s.readNow(p)
		if err != errNothing {
			return n, err
		}
		if err := await(s.readable, by); err != nil {
			return 0, err
		}
	}
}

// errNothing says that there is nothing to read yet.
var errNothing = errors.New("nothing to read yet")

// readNow reads what has arrived. If that is nothing it returns errNothing and
// until when to wait for it.
func (s *tcpStream) readNow(p []byte) (n int, by time.Time, err error) {
	s.session.mu.Lock()
	defer s.session.mu.Unlock()
	switch {
	case s.readErr != nil:
		return 0, by, s.readErr
	case len(s.chunks) > 0:
		return s.take(p), by, nil
	case s.fin:
		return 0, by, io.EOF
	case len(p) == 0:
		return 0, by, nil
	}
	return 0, s.readBy, errNothing
}

// take moves received bytes to p and returns their room to the other end, half
// a window at a time.
func (s *tcpStream) take(p []byte) (n int) {
	for n < len(p) && len(s.chunks) > 0 {
		c := s.chunks[0]
		m := copy(p[n:], c.b[c.r:c.w])
		n += m
		if c.r += m; c.r == c.w {
			s.chunks = slices.Delete(s.chunks, 0, 1) // of a few dozen at most
			s.session.free(c)
		}
	}
	s.consumed += n
	if s.fin {
		s.session.settle(s)
	} else if s.consumed >= int(s.session.windows.Stream)/4 {
		s.session.control(s)
	}
	return n
}

func (s *tcpStream) Write(p []byte) (n int, err error) {
	t := s.session
	t.mu.Lock()
	switch {
	case s.writeErr != nil:
		defer t.mu.Unlock()
		return 0, s.writeErr
	case s.closed:
		defer t.mu.Unlock()
		return 0, net.ErrClosed
	}
	s.pending = p
	t.sendable(s)
	for {
		switch {
		case len(s.pending) == 0: // all was taken, whatever became of the stream since
		case s.writeErr != nil:
			err = s.writeErr
		case expired(s.writeBy):
			err = os.ErrDeadlineExceeded
		}
		if err != nil || len(s.pending) == 0 {
			n = len(p) - len(s.pending)
			s.pending = nil // the session copies under its lock: it is done with p
			t.mu.Unlock()
			return n, err
		}
		by := s.writeBy
		t.mu.Unlock()
		_ = await(s.writable, by) // looked at above
		t.mu.Lock()
	}
}

func expired(by time.Time) bool { return !by.IsZero() && !time.Now().Before(by) }

// await waits for c until a deadline; the zero time is none.
func await(c <-chan struct{}, by time.Time) error {
	if by.IsZero() {
		<-c
		return nil
	}
	left := time.Until(by)
	if left <= 0 {
		return os.ErrDeadlineExceeded
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-c:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

func (s *tcpStream) CloseWrite() error {
	t := s.session
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.writeErr != nil || s.closed {
		return s.writeErr
	}
	s.closed = true
	s.end(net.ErrClosed)
	s.oweFin = true
	t.sendable(s)
	return nil
}

func (s *tcpStream) StopRead() {
	t := s.session
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.readErr != nil {
		return
	}
	s.stopReading(net.ErrClosed)
	if s.fin {
		t.settle(s)
		return
	}
	s.oweStop = true
	t.control(s)
}

func (s *tcpStream) Reset(code wire.Code) {
	t := s.session
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := s.fin && (s.closed || s.finished) // in order: there is nothing to abort
	s.stopReading(net.ErrClosed)
	s.stopWriting(net.ErrClosed)
	if ended || t.err != nil {
		t.settle(s)
		return
	}
	s.fin, s.finished = true, true
	s.oweReset, s.oweStop, s.oweFin, s.code = true, false, false, code
	t.control(s)
}

func (s *tcpStream) OnStop(f func(error)) (stop func() bool) {
	return context.AfterFunc(s.over, func() {
		if err := context.Cause(s.over); err != net.ErrClosed {
			f(err)
		}
	})
}

func (s *tcpStream) SetReadDeadline(by time.Time) error {
	s.session.mu.Lock()
	s.readBy = by
	s.session.mu.Unlock()
	poke(s.readable)
	return nil
}

func (s *tcpStream) SetWriteDeadline(by time.Time) error {
	s.session.mu.Lock()
	s.writeBy = by
	s.session.mu.Unlock()
	poke(s.writable)
	return nil
}

func (s *tcpStream) SetDeadline(by time.Time) error {
	s.SetReadDeadline(by)
	return s.SetWriteDeadline(by)
}

// poke wakes who waits on c, or who will next.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The methods below need session.mu.

// stopReading ends the read half for who reads here, and drops what is unread.
func (s *tcpStream) stopReading(err error) {
	if s.readErr == nil {
		s.readErr = err
	}
	for _, c := range s.chunks {
		s.session.free(c)
	}
	s.chunks = nil
	poke(s.readable)
}

// stopWriting ends the write half for who writes here.
func (s *tcpStream) stopWriting(err error) {
	if s.writeErr == nil {
		s.writeErr = err
	}
	s.end(err)
	poke(s.writable)
}

// received takes the payload of a DATA frame, in a chunk that it keeps, unless
// it returns it.
func (s *tcpStream) received(c *chunk) (left *chunk) {
	if c.w == 0 || s.readErr != nil {
		return c
	}
	if n := len(s.chunks); n > 0 && c.w < fullChunk {
		last := s.chunks[n-1]
		m := copy(last.b[last.w:], c.b[:c.w])
		last.w += m
		if m == c.w {
			poke(s.readable)
			return c
		}
		c.w = copy(c.b[:], c.b[m:c.w])
	}
	s.chunks = append(s.chunks, c)
	poke(s.readable)
	return nil
}
