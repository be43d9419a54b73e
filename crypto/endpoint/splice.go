package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// copyLen is how much of a stream is in memory for each direction, in bytes.
	copyLen = 32 << 10
	// halfOpenIdle is how long a TCP side may say nothing after everything for
	// it has been delivered and ended.
	halfOpenIdle = 10 * time.Minute
	// lingerTime is how long a TCP side has to take what was sent to it before a
	// close that it would see as an abort.
	lingerTime = 2 * time.Second
	// drainTime is the same for a local program that goes on sending what nobody
	// wants.
	drainTime = 30 * time.Second
)

// plain is a connection without a seal: a *net.TCPConn.
type plain interface {
	net.Conn
	CloseWrite() error
}

// sealed is what forwarding needs of an *e2e.Conn.
type sealed interface {
	plain
	Reset(wire.Code)
}

// splice carries bytes both ways between a TCP connection and a sealed stream.
// An end passes on as an end, one half at a time, and an abort as an abort:
// whoever reads a clean end has read everything.
type splice struct {
	plain  plain
	sealed sealed
	local  bool // plain is the program at the device, not the origin

	upEnded, downEnded atomic.Bool // up is from plain to sealed
	draining           atomic.Bool

	once sync.Once // guards err
	err  error     // the first failure
}

// run returns when both directions have ended and both connections are closed,
// with what aborted them. It has two goroutines, its caller's among them.
func (s *splice) run(ctx context.Context) error {
	defer onEnd(ctx, func() { s.abort(context.Cause(ctx)) })()
	up := make(chan bool, 1) // one value, from the goroutine below
	go func() { up <- s.up() }()
	s.down()
	unread := <-up
	s.once.Do(func() {}) // nothing aborts from here on
	if s.err != nil {
		return s.err
	}
	if unread {
		// To close now would abort the end that was just sent.
		pause(ctx, lingerTime, nil)
	}
	return errors.Join(s.sealed.Close(), s.plain.Close())
}

// up copies from plain to sealed. It reports whether the other endpoint has
// stopped reading, so that bytes of plain may be left unread.
func (s *splice) up() (unread bool) {
	b := make([]byte, copyLen)
	for {
		n, err := s.plain.Read(b)
		if n > 0 {
			if _, werr := s.sealed.Write(b[:n]); werr != nil {
				return s.upRefused(werr, b)
			}
			if s.downEnded.Load() {
				s.plain.SetReadDeadline(time.Now().Add(halfOpenIdle))
			}
		}
		if err == io.EOF {
			if err = s.sealed.CloseWrite(); err != nil {
				return s.upRefused(err, b)
			}
			s.upEnded.Store(true)
			return false
		}
		if err != nil {
			s.abort(err)
			return false
		}
	}
}

// upRefused decides what it means that sealed takes nothing more. The other
// endpoint may have said so in order while its own half goes on, as an HTTP
// server that refuses an upload does. A local program then sends into the void,
// because a close with unread bytes would abort the answer on its way to it; an
// origin is held back.
func (s *splice) upRefused(err error, b []byte) (unread bool) {
	if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != wire.CodeNone {
		s.abort(err)
		return false
	}
	if !s.local {
		return true
	}
	s.draining.Store(true)
	if s.downEnded.Load() {
		s.plain.SetReadDeadline(time.Now().Add(drainTime))
	}
	for {
		if _, err := s.plain.Read(b); err != nil {
			if err != io.EOF && !s.downEnded.Load() {
				s.abort(err)
			}
			return false
		}
	}
}

// down copies from sealed to plain.
func (s *splice) down() {
	b := make([]byte, copyLen)
	for {
		n, err := s.sealed.Read(b)
		if n > 0 {
			if _, werr := s.plain.Write(b[:n]); werr != nil {
				s.downRefused(werr)
				return
			}
		}
		if err == io.EOF {
			s.downEnded.Store(true)
			patience := halfOpenIdle
			if s.draining.Load() {
				patience = drainTime
			}
			s.plain.SetReadDeadline(time.Now().Add(patience))
			if err = s.plain.CloseWrite(); err == nil {
				return
			}
			s.downRefused(err)
			return
		}
		if err != nil {
			s.abort(err)
			return
		}
	}
}

// downRefused ends the splice after plain has gone. If all that plain had to
// say was passed on with its end, that must still arrive.
func (s *splice) downRefused(err error) {
	if s.upEnded.Load() {
		s.once.Do(func() {
			s.err = err
			abortPlain(s.plain)
			s.sealed.Close()
		})
		return
	}
	s.abort(err)
}

// abort ends both connections such that neither side can take it for an end.
func (s *splice) abort(err error) {
	s.once.Do(func() {
		s.err = err
		abortPlain(s.plain)
		s.sealed.Reset(wire.CodeCancelled)
	})
}

// abortPlain closes a TCP connection with RST, so that its other end cannot
// take a part for the whole (RFC 9293, section 3.10.4).
func abortPlain(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// onEnd calls f when ctx ends, unless the returned function is called before,
// which otherwise waits for f.
func onEnd(ctx context.Context, f func()) (release func()) {
	done := make(chan struct{}) // closed when f has returned
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}
