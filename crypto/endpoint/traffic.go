package endpoint

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// traffic is what goes through one relay. The roster's mu guards it.
type traffic struct {
	devices   map[uint64]*device // by attachment; an entry exists while it has a stream
	streaming int                // how many of them stream
}

// device is an attachment with open streams. The first one holds its session;
// those that come later carry something.
type device struct{ open, carrying int }

func (t *traffic) begin(attachment uint64) (carries bool) {
	d := t.devices[attachment]
	if d == nil {
		if t.devices == nil {
			t.devices = make(map[uint64]*device)
		}
		d = &device{}
		t.devices[attachment] = d
	}
	carries = d.open > 0
	d.open++
	if carries {
		if d.carrying++; d.carrying == 1 {
			t.streaming++
		}
	}
	return carries
}

func (t *traffic) end(attachment uint64, carried bool) {
	d := t.devices[attachment]
	d.open--
	if carried {
		if d.carrying--; d.carrying == 0 {
			t.streaming--
		}
	}
	if d.open == 0 {
		delete(t.devices, attachment)
	}
}

// count lets the roster know that a stream has begun, and when it ends.
func (l *link) count(attachment uint64, st e2e.Stream) e2e.Stream {
	r, t := l.roster, &l.place.traffic
	r.mu.Lock()
	defer r.mu.Unlock()
	was := t.streaming
	l.streams++
	carries := t.begin(attachment)
	if t.streaming != was {
		r.moved.broadcast()
	}
	return &counted{Stream: st, ended: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		was := t.streaming
		l.streams--
		t.end(attachment, carries)
		if t.streaming != was || l.streams == 0 {
			r.moved.broadcast()
		}
	}}
}

// counted is a stream whose end is noticed: of both halves, or of all.
type counted struct {
	e2e.Stream
	ended func()
	over  atomic.Uint32 // the halves that have ended
}

const (
	halfRead = 1 << iota
	halfWrite
	bothHalves = halfRead | halfWrite
)

func (c *counted) finish(halves uint32) {
	if before := c.over.Or(halves); before != bothHalves && before|halves == bothHalves {
		c.ended()
	}
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.finish(halfRead)
	}
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Stream.Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.finish(halfWrite)
	}
	return n, err
}

func (c *counted) CloseWrite() error {
	err := c.Stream.CloseWrite()
	c.finish(halfWrite)
	return err
}

func (c *counted) StopRead() {
	c.Stream.StopRead()
	c.finish(halfRead)
}

func (c *counted) Reset(code wire.Code) {
	c.Stream.Reset(code)
	c.finish(bothHalves)
}
