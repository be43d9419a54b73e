package e2e

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// sessionLife is how long a session may last; after it the device makes a
	// new one, with new keys.
	sessionLife = 24 * time.Hour
	// maxTampered is how many manipulated streams end the whole session.
	maxTampered = 8
)

// session is what both endpoints keep of a session: its secret, its control
// channel and its open streams. It has two goroutines: run, and one for read.
type session struct {
	// Set at construction.
	st         Stream // carries tls
	tls        *tls.Conn
	suite      *suite
	secret     []byte
	self, peer Pin
	since      time.Time
	log        *slog.Logger
	pool       *bufferPool

	idle        atomic.Int64 // Welcome.Idle, ns
	bytesIn     atomic.Int64 // content of sealed streams
	bytesOut    atomic.Int64
	control     sync.Mutex    // held while a frame is written
	farewellErr error         // set when run has returned
	retime      chan struct{} // setIdle tells keep; one place, because one word is enough
	done        chan struct{} // closed by end
	ended       atomic.Bool   // done is closed or about to be

	mu       sync.Mutex
	err      error     // why it ended
	goodbye  *Frame    // what keep says at the end; nil: nothing. Constant once err is set
	code     wire.Code // of the resets at the end. Constant once err is set
	conns    map[*Conn]struct{}
	tampered int
}

// newSession takes over a TLS connection whose handshake both sides of this
// package have verified. device and server are the pins of the two.
func newSession(st Stream, t *tls.Conn, cs tls.ConnectionState, server, device Pin, pool *bufferPool, log *slog.Logger) (*session, error) {
	secret, err := export(cs, exporterStreams, server, device)
	if err != nil {
		return nil, err
	}
	s := &session{
		st: st, tls: t, suite: suiteOf(cs.CipherSuite), secret: secret,
		since: time.Now(), log: log, pool: pool,
		retime: make(chan struct{}, 1), done: make(chan struct{}), conns: make(map[*Conn]struct{}),
	}
	s.idle.Store(int64(defaultIdle))
	return s, nil
}

// run serves the control channel until the session has ended. first is how
// long the first frame may take; handle gets every frame but PING and GOAWAY.
func (s *session) run(first time.Duration, handle func(Frame) error) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.end(s.read(first, handle), nil, wire.CodeCancelled)
	}()
	s.keep()
	<-read
}

// read handles control frames until the control channel ends.
func (s *session) read(patience time.Duration, handle func(Frame) error) error {
	for ; ; patience = time.Duration(s.idle.Load()) {
		if err := s.tls.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		f, err := ReadFrame(s.tls)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ErrSilent
		}
		if err == io.EOF {
			return errors.New("the other endpoint closed the session")
		}
		if err != nil {
			return fmt.Errorf("the session's control stream broke off: %w", err)
		}
		switch f.Type {
		case framePing:
		case frameGoAway:
			if len(f.Payload) < 2 || len(f.Payload) > 2+maxReason {
				return fmt.Errorf("%w: GOAWAY of %d bytes", ErrFrame, len(f.Payload))
			}
			return &GoAwayError{Code: wire.Code(binary.BigEndian.Uint16(f.Payload)), Reason: string(f.Payload[2:])}
		default:
			if err := handle(f); err != nil {
				return err
			}
		}
	}
}

// setIdle takes over Welcome.Idle.
func (s *session) setIdle(d time.Duration) {
	s.idle.Store(int64(d))
	select {
	case s.retime <- struct{}{}:
	default:
	}
}

// unknown is the answer to a frame of a type that this side does not know.
func unknown(f Frame) error {
	if f.Type >= FrameOptional {
		return nil
	}
	return fmt.Errorf("%w: type 0x%02x", ErrFrame, f.Type)
}

// keep sends signs of life until the session ends, and then ends its stream.
func (s *session) keep() {
	for alive := true; alive; {
		t := time.NewTimer(time.Duration(s.idle.Load()) / 3)
		select {
		case <-s.done:
			alive = false
		case <-s.retime:
		case <-t.C:
			if time.Since(s.since) > sessionLife {
				s.goAway(wire.CodeNone, "the session has reached its age limit")
			} else if err := s.send(Frame{Type: framePing}); err != nil {
				s.end(fmt.Errorf("the session's control stream broke off: %w", err), nil, wire.CodeCancelled)
			}
		}
		t.Stop()
	}
	if s.goodbye == nil {
		s.st.Reset(s.code)
		return
	}
	s.farewellErr = farewell(s.st, func() error {
		if err := s.send(*s.goodbye); err != nil {
			return err
		}
		return s.tls.CloseWrite()
	})
}

// send writes one control frame.
func (s *session) send(f Frame) error {
	s.control.Lock()
	defer s.control.Unlock()
	if err := s.tls.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	return WriteFrame(s.tls, f)
}

// goAway ends the session from this side and tells the other one why. Streams
// are dead when it returns; the control stream ends in the background.
func (s *session) goAway(code wire.Code, reason string) {
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	p = append(p, reason[:min(len(reason), maxReason)]...)
	s.end(&ClosedError{code, reason}, &Frame{Type: frameGoAway, Payload: p}, code)
}

// end ends the session once: every stream fails with err. It does not wait for
// Reads and Writes that are about to return, because it may run inside one;
// quiesce waits.
func (s *session) end(err error, goodbye *Frame, code wire.Code) {
	if !code.FromEndpoint() {
		code = wire.CodeCancelled // what a relay lets through
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err, s.goodbye, s.code = err, goodbye, code
	s.ended.Store(true)
	s.mu.Unlock()
	s.killStreams()
	close(s.done)
	s.log.Info("session ended", "endpoint", s.peer, "reason", err)
}

// add registers an open stream unless the session has ended or has max.
func (s *session) add(c *Conn, max int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("the session has ended: %w", s.err)
	}
	if len(s.conns) >= max {
		return ErrTooManyStreams
	}
	s.conns[c] = struct{}{}
	return nil
}

// remove forgets a stream that no Read or Write runs on. The streams of an
// ended session stay, for quiesce.
func (s *session) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		delete(s.conns, c)
	}
}

// killStreams makes every stream of an ended session fail.
func (s *session) killStreams() {
	err := s.ending()
	for _, c := range s.open() {
		c.kill(err, s.code)
	}
}

// quiesce returns when every stream of an ended session is dead and no Read or
// Write runs any more. The goroutine that ended the session may still be on
// its way through them.
func (s *session) quiesce() {
	s.killStreams()
	for _, c := range s.open() {
		c.quiesce()
	}
}

// ending is what streams of an ended session fail with.
func (s *session) ending() error { return fmt.Errorf("the session has ended: %w", s.reason()) }

// open returns the streams that are open now.
func (s *session) open() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// attacked counts a manipulated stream. Too many end the session.
func (s *session) attacked(err error) {
	s.mu.Lock()
	s.tampered++
	n := s.tampered
	s.mu.Unlock()
	s.log.Warn("sealed stream refused", "endpoint", s.peer, "reason", err)
	if n == maxTampered {
		s.goAway(wire.CodeTampered, ErrTampered.Error())
	}
}
