package hostile

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// laneLen is how many bytes wait in one direction of a stream.
const laneLen = 64 << 10

// lane is one direction of a stream in memory: bounded, with FIN, reset,
// orderly stop and deadlines, as transport.Stream wants them.
type lane struct {
	mu         sync.Mutex
	cond       *sync.Cond
	buf        []byte
	fin        bool
	rerr, werr error // what Reads and Writes fail with; nil: they do not
	rd, wd     laneDeadline
}

type laneDeadline struct {
	at    time.Time
	timer *time.Timer
}

func newLane() *lane {
	l := &lane{}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (d *laneDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (l *lane) setDeadline(d *laneDeadline, t time.Time) {
	l.set(func() {
		if d.timer != nil {
			d.timer.Stop()
		}
		// A timer that is due when it is made can crash the runtime of Go 1.26 in a
		// synctest bubble under -race, and set wakes the lane anyway.
		d.at = t
		if left := time.Until(t); !t.IsZero() && left > 0 {
			d.timer = time.AfterFunc(left, func() { l.set(func() {}) })
		}
	})
}

func (l *lane) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.rerr != nil:
			return 0, l.rerr
		case l.rd.passed():
			return 0, os.ErrDeadlineExceeded
		case len(l.buf) > 0:
			n := copy(p, l.buf)
			l.buf = l.buf[:copy(l.buf, l.buf[n:])]
			l.cond.Broadcast()
			return n, nil
		case l.fin:
			return 0, io.EOF
		}
		l.cond.Wait()
	}
}

func (l *lane) write(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.werr != nil:
			return n, l.werr
		case l.fin:
			return n, net.ErrClosed
		case l.wd.passed():
			return n, os.ErrDeadlineExceeded
		}
		k := min(laneLen-len(l.buf), len(p))
		l.buf = append(l.buf, p[:k]...)
		p, n = p[k:], n+k
		l.cond.Broadcast()
		if len(p) == 0 {
			return n, nil
		}
		l.cond.Wait()
	}
}

func (l *lane) closeWrite() (err error) {
	l.set(func() {
		if err = l.werr; err == nil {
			l.fin = true
		}
	})
	return err
}

// fail ends the direction. What was read as a whole before stays so.
func (l *lane) fail(reader, writer error) {
	l.set(func() {
		if l.rerr == nil && !(l.fin && len(l.buf) == 0) {
			l.rerr = reader
		}
		if l.werr == nil {
			l.werr = writer
		}
		l.buf = nil
	})
}

func (l *lane) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.cond.Broadcast()
}

// end is one end of a stream in memory.
type end struct{ in, out *lane }

func newStream() (*end, *end) {
	a, b := newLane(), newLane()
	return &end{a, b}, &end{b, a}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) CloseWrite() error           { return e.out.closeWrite() }
func (e *end) StopRead()                   { e.in.fail(net.ErrClosed, &wire.ResetError{Code: wire.CodeNone}) }

func (e *end) Reset(code wire.Code) {
	e.in.fail(net.ErrClosed, &wire.ResetError{Code: code})
	e.out.fail(&wire.ResetError{Code: code}, net.ErrClosed)
}

// lose is what the end of the connection does to this end.
func (e *end) lose(err error) {
	e.in.set(func() { e.in.rerr = err })
	e.out.set(func() { e.out.werr = err })
}

// OnStop never calls f: only relays ask for it, and this relay has no use for it.
func (e *end) OnStop(func(error)) (stop func() bool) { return func() bool { return true } }

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.rd, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.wd, t)
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

var _ transport.Stream = (*end)(nil)
