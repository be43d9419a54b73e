package model

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// hop is a stream through the relay, in memory. It has room for everything and
// keeps what the device wrote.
type hop struct {
	mu   sync.Mutex
	cond *sync.Cond
	err  error   // of both ends
	half [2]lane // what the device wrote, what the agent wrote
}

type lane struct {
	all      []byte
	read     int
	fin      bool
	stopped  bool
	deadline [2]time.Time // of the reader, of the writer
}

// end is the device's end (0) or the agent's (1) of a hop.
type end struct {
	*hop
	side int
}

func newHop() (device, agent end) {
	h := new(hop)
	h.cond = sync.NewCond(&h.mu)
	return end{h, 0}, end{h, 1}
}

func (h *hop) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.cond.Broadcast()
}

// sent returns what the device has written.
func (h *hop) sent() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return bytes.Clone(h.half[0].all)
}

func (e end) in() *lane  { return &e.half[1-e.side] }
func (e end) out() *lane { return &e.half[e.side] }

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (e end) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := e.in(); ; e.cond.Wait() {
		switch {
		case e.err != nil:
			return 0, e.err
		case l.stopped:
			return 0, &wire.ResetError{Code: wire.CodeNone}
		case passed(l.deadline[0]):
			return 0, os.ErrDeadlineExceeded
		case l.read < len(l.all):
			n := copy(p, l.all[l.read:])
			l.read += n
			return n, nil
		case l.fin:
			return 0, io.EOF
		}
	}
}

func (e end) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.out()
	switch {
	case e.err != nil:
		return 0, e.err
	case l.stopped:
		return 0, &wire.ResetError{Code: wire.CodeNone}
	case l.fin:
		return 0, io.ErrClosedPipe
	case passed(l.deadline[1]):
		return 0, os.ErrDeadlineExceeded
	}
	l.all = append(l.all, p...)
	e.cond.Broadcast()
	return len(p), nil
}

func (e end) CloseWrite() error { e.set(func() { e.out().fin = true }); return nil }

func (e end) StopRead() {
	e.set(func() {
		if l := e.in(); !l.fin || l.read < len(l.all) {
			l.stopped = true
		}
	})
}

func (e end) Reset(code wire.Code) {
	e.set(func() {
		if e.err == nil {
			e.err = &wire.ResetError{Code: code}
		}
	})
}

func (e end) setDeadline(l *lane, which int, t time.Time) {
	e.set(func() { l.deadline[which] = t })
	// A timer that is due when it is made can crash the runtime of Go 1.26 in a
	// synctest bubble under -race, and set has woken the lane already.
	if left := time.Until(t); !t.IsZero() && left > 0 {
		time.AfterFunc(left, func() { e.set(func() {}) })
	}
}

func (e end) SetReadDeadline(t time.Time) error  { e.setDeadline(e.in(), 0, t); return nil }
func (e end) SetWriteDeadline(t time.Time) error { e.setDeadline(e.out(), 1, t); return nil }
func (e end) SetDeadline(t time.Time) error      { e.SetReadDeadline(t); return e.SetWriteDeadline(t) }
