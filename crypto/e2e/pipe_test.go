package e2e

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// lane is one direction of an in-memory hop: bounded, with FIN, reset, orderly
// stop and deadlines. It works inside a synctest bubble.
type lane struct {
	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	all     []byte // everything written, on lanes of the most room
	limit   int
	fin     bool
	stopped bool
	err     error
	rd, wd  laneDeadline
	cut     func() // called once, when left bytes were written
	left    int
}

type laneDeadline struct {
	at    time.Time
	timer *time.Timer
}

func newLane(limit int) *lane {
	l := &lane{limit: limit}
	l.cond = sync.NewCond(&l.mu)
	return l
}

func (d *laneDeadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (l *lane) setDeadline(d *laneDeadline, t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = t
	// The runtime of Go 1.26 can crash under -race where a timer of a synctest
	// bubble is due when it is made. None is needed then: passed says it.
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.cond.Broadcast()
		})
	}
	l.cond.Broadcast()
}

func (l *lane) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.err != nil:
			return 0, l.err
		case l.stopped:
			return 0, &wire.ResetError{Code: wire.CodeNone}
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
		case l.err != nil:
			return n, l.err
		case l.stopped:
			return n, &wire.ResetError{Code: wire.CodeNone}
		case l.fin:
			return n, io.ErrClosedPipe
		case l.wd.passed():
			return n, os.ErrDeadlineExceeded
		}
		if room := l.limit - len(l.buf); room > 0 {
			k := min(room, len(p))
			if l.cut != nil {
				if k = min(k, l.left); k == 0 && len(p) > 0 {
					go l.cut()
					l.cut = nil
					l.cond.Wait()
					continue
				}
				l.left -= k
			}
			l.buf = append(l.buf, p[:k]...)
			if l.limit == 1<<20 {
				l.all = append(l.all, p[:k]...)
			}
			p, n = p[k:], n+k
			l.cond.Broadcast()
		}
		if len(p) == 0 {
			return n, nil
		}
		l.cond.Wait()
	}
}

// whole returns everything written, after the FIN.
func (l *lane) whole() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.fin {
		l.cond.Wait()
	}
	return l.all
}

func (l *lane) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.cond.Broadcast()
}

func (l *lane) reset(code wire.Code) {
	l.set(func() {
		if l.err == nil && !(l.fin && len(l.buf) == 0) {
			l.err = &wire.ResetError{Code: code}
		}
	})
}

// pipeEnd is one end of an in-memory hop.
type pipeEnd struct{ in, out *lane }

// newPipe returns the two ends of a hop that holds at most limit bytes in each
// direction.
func newPipe(limit int) (*pipeEnd, *pipeEnd) {
	a, b := newLane(limit), newLane(limit)
	return &pipeEnd{a, b}, &pipeEnd{b, a}
}

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *pipeEnd) CloseWrite() error           { e.out.set(func() { e.out.fin = true }); return nil }
func (e *pipeEnd) StopRead() {
	e.in.set(func() {
		if !e.in.fin || len(e.in.buf) > 0 {
			e.in.stopped = true
		}
	})
}
func (e *pipeEnd) Reset(code wire.Code) { e.in.reset(code); e.out.reset(code) }
func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.rd, t)
	return nil
}
func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.wd, t)
	return nil
}
func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

var _ Stream = (*pipeEnd)(nil)
