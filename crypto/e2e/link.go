package e2e

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// controlQueue is how many control frames may wait for a link. A link on which
// more wait is stuck, and is given up.
const controlQueue = 1024

// Link is a session's way through one relay connection: a TLS connection of
// its own, on a stream of its own, that both endpoints have verified. It
// carries control frames; sealed streams use the relay connection beside it.
// It has two goroutines, one that reads and one that writes.
type Link struct {
	// Set at construction.
	s                 *session
	st                Stream // carries tls
	tls               *tls.Conn
	binding           []byte
	open              func(ctx context.Context) (Stream, error) // another stream of the relay connection; nil at the agent
	more              chan struct{}                             // wakes write; one place, because there is one writer
	done              chan struct{}                             // closed by end
	heard             chan struct{}                             // closed when nothing is read any more
	taken             chan struct{}                             // closed when the agent's WELCOME has come, at the device
	bytesIn, bytesOut atomic.Int64                              // see Traffic

	mu       sync.Mutex
	err      error         // why it ended
	out      []Frame       // at most controlQueue
	pongs    uint64        // highest number of a PING that was answered
	pings    uint64        // highest number sent
	answered chan struct{} // closed and replaced at each answer
	rtt      time.Duration // of the latest Probe
}

func newLink(s *session, st Stream, t *tls.Conn, binding []byte, open func(context.Context) (Stream, error)) *Link {
	return &Link{
		s: s, st: st, tls: t, binding: binding, open: open,
		more: make(chan struct{}, 1), done: make(chan struct{}), heard: make(chan struct{}), taken: make(chan struct{}), answered: make(chan struct{}),
	}
}

// run serves the link until it or the session has ended. first is how long the
// first frame may take; handle gets the frames that both sides do not treat
// alike.
func (l *Link) run(first time.Duration, handle func(Frame) error) {
	go func() {
		defer close(l.heard)
		l.end(l.read(first, handle))
	}()
	l.write()
	<-l.heard
	l.s.unlink(l)
}

// end ends the link once. The session goes on.
func (l *Link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.done)
		l.resetSoon()
	}
}

// resetSoon frees a writer that waits for an endpoint which takes nothing.
func (l *Link) resetSoon() {
	time.AfterFunc(farewellTimeout, func() { l.st.Reset(wire.CodeTimeout) })
}

func (l *Link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// say queues a frame. A link that takes none is given up.
func (l *Link) say(f Frame) {
	l.mu.Lock()
	room := len(l.out) < controlQueue
	if room {
		l.out = append(l.out, f)
	}
	l.mu.Unlock()
	if !room {
		l.end(errors.New("the control stream takes no more"))
	}
	wake(l.more)
}

// sendAll writes what is queued.
func (l *Link) sendAll() error {
	l.mu.Lock()
	out := l.out
	l.out = nil
	l.mu.Unlock()
	for _, f := range out {
		if err := l.send(f); err != nil {
			return err
		}
	}
	return nil
}

// write sends frames and signs of life, and the goodbye at the end.
func (l *Link) write() {
	pause := l.pause()
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		var err error
		select {
		case <-l.more:
			err = l.sendAll()
			if p := l.pause(); p != pause { // WELCOME changes it
				pause = p
				t.Reset(p)
			}
		case <-t.C:
			err = l.send(Frame{Type: framePing})
			t.Reset(pause)
		case <-l.s.done:
			l.part()
			return
		case <-l.done:
			l.st.Reset(wire.CodeCancelled)
			return
		}
		if err != nil {
			l.hearOut(err)
			l.end(fmt.Errorf("%w: %w", errControl, err))
		}
	}
}

// hearOut waits a moment for the goodbye of an endpoint that reads no more.
func (l *Link) hearOut(err error) {
	var reset *wire.ResetError
	if !errors.As(err, &reset) || reset.Code != wire.CodeNone {
		return
	}
	t := time.NewTimer(farewellTimeout)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done:
	case <-l.s.done:
	}
}

func (l *Link) pause() time.Duration { return time.Duration(l.s.idle.Load()) / 3 }

// part ends the link of a session that has ended.
func (l *Link) part() {
	goodbye, code := l.s.farewell()
	if goodbye == nil {
		l.st.Reset(code)
		return
	}
	t := time.AfterFunc(farewellTimeout, func() { l.st.Reset(wire.CodeTimeout) })
	defer t.Stop()
	err := l.send(*goodbye)
	if err == nil {
		err = l.tls.CloseWrite()
	}
	if err == nil {
		err = l.st.CloseWrite()
	}
	if err != nil {
		l.st.Reset(wire.CodeCancelled)
		return
	}
	// Whoever hears the goodbye ends the stream. The end of the relay
	// connection, which may come next, drops what is still under way.
	<-l.heard
	l.s.told.Store(true)
}

// send writes one control frame.
func (l *Link) send(f Frame) error {
	if err := l.tls.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	return WriteFrame(l.tls, f)
}

// read handles control frames until the control stream ends.
func (l *Link) read(patience time.Duration, handle func(Frame) error) error {
	for ; ; patience = time.Duration(l.s.idle.Load()) {
		if err := l.tls.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		f, err := ReadFrame(l.tls)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ErrSilent
		}
		if err == io.EOF {
			return errControlEnd
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errControl, err)
		}
		if f.Type != framePing || len(f.Payload) > 0 { // signs of life come over all links
			l.s.hear(l)
		}
		switch f.Type {
		case framePing:
			if len(f.Payload) == 8 {
				l.say(Frame{Type: framePong, Payload: f.Payload})
			}
		case framePong:
			err = l.pong(f.Payload)
		case frameGoAway, frameAck, frameCancel:
			err = l.s.control(f)
		default:
			err = handle(f)
			wake(l.more)
		}
		if err != nil {
			l.s.end(err, nil, wire.CodeCancelled)
			return err
		}
	}
}

// Errors of what carries a link.
var (
	errControl    = errors.New("the session's control stream broke off")
	errControlEnd = fmt.Errorf("%w: the other endpoint closed it", errControl)
)

func (l *Link) pong(p []byte) error {
	if len(p) != 8 {
		return fmt.Errorf("%w: PONG of %d bytes", ErrFrame, len(p))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := binary.BigEndian.Uint64(p)
	if n > l.pings {
		return fmt.Errorf("%w: PONG without PING", ErrFrame)
	}
	if n > l.pongs {
		l.pongs = n
		close(l.answered)
		l.answered = make(chan struct{})
	}
	return nil
}

// Done is closed when the link has ended. Its session may go on.
func (l *Link) Done() <-chan struct{} { return l.done }

// Err says why the link ended, nil before.
func (l *Link) Err() error { return l.reason() }

// Close ends the link. Streams that it carries go on over another one.
func (l *Link) Close() { l.end(errLinkClosed) }

var errLinkClosed = errors.New("the link was closed here")

// Probe asks the other endpoint for a sign of life and returns how long it took.
func (l *Link) Probe(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	l.mu.Lock()
	l.pings++
	n := l.pings
	l.mu.Unlock()
	l.say(Frame{Type: framePing, Payload: binary.BigEndian.AppendUint64(nil, n)})
	for {
		l.mu.Lock()
		answered, done := l.answered, l.pongs >= n
		if done {
			l.rtt = time.Since(start)
		}
		l.mu.Unlock()
		if done {
			return time.Since(start), nil
		}
		select {
		case <-answered:
		case <-l.done:
			return 0, l.reason()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// RTT is the round trip to the other endpoint as the latest Probe found it, 0
// before.
func (l *Link) RTT() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt
}
