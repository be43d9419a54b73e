package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// sealed makes a stream with this preface a carrier of a Conn of its session,
// a new one if it is the first.
func (s *Server) sealed(id uint64, st Stream, preface []byte) error {
	p, err := parseOpenPreface(preface)
	if err != nil {
		return err
	}
	l, name, theirs, err := s.match(id, &p)
	if err != nil {
		return err
	}
	v := l.session
	var at resumption
	if preface[0] == kindResumed {
		if l, at, err = s.resumption(id, l, preface[openPrefaceLen:], theirs.resume); err != nil {
			return err
		}
	}
	if _, err := s.cfg.Admit(v.peer); err != nil {
		v.goAway(wire.CodeRefused, "this device is no longer on the server's list of devices")
		return fmt.Errorf("device %s: %w", v.peer, err)
	}
	if err := st.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c, fresh, err := v.take(name, theirs, at.number > 0)
	if err != nil {
		return err
	}
	if preface[0] == kindResumed {
		err = c.resumeAt(l.Link, st, at)
	} else {
		err = c.begin(&carrier{st: st, link: l.Link, preface: c.preface})
	}
	switch {
	case err == ErrReplay:
		c.kill(err, wire.CodeTampered)
		v.attacked(err)
	case err == errOvertaken:
		c.await() // another carrier is here, or on its way
	case err != nil && fresh:
		c.Reset(wire.CodeCancelled)
		return err
	}
	if fresh && err != ErrReplay {
		select {
		case s.accepted <- c:
		default:
			c.Reset(wire.CodeBusy)
		}
	}
	return err
}

// take returns the stream with this name, and makes it if its number is new.
// again says that the device has tried to open it before: what is over here
// may have been lost on the way there.
func (v *served) take(name *streamName, theirs sealedHalf, again bool) (c *Conn, fresh bool, err error) {
	v.opening.Lock()
	defer v.opening.Unlock()
	if c := v.conn(name.id); c != nil {
		if dead := c.dead.Load(); dead != nil {
			code := wire.CodeCancelled
			if c.delivered.Load() {
				code = wire.CodeNone
			}
			v.cancelLater(name.id, code)
			return nil, false, errOver
		}
		return c, false, nil
	}
	switch {
	case v.seen.use(name.id):
	case v.forgone.has(name.id):
		return nil, false, errOver
	case again || v.joined() || v.lateFirst():
		v.cancelLater(name.id, wire.CodeNone)
		return nil, false, errOver
	default:
		v.attacked(ErrReplay)
		return nil, false, ErrReplay
	}
	if c, err = acceptConn(v.session, name, theirs); err != nil {
		return nil, false, err
	}
	if err = v.add(c, int(v.maxStreams.Load())); err == ErrTooManyStreams {
		v.cancelLater(name.id, wire.CodeBusy)
		err = errBusy
	}
	return c, true, err
}

// never makes sure that a stream whose end has overtaken its beginning is not
// taken, and returns it if it was.
func (v *served) never(id uint64) *Conn {
	v.opening.Lock()
	defer v.opening.Unlock()
	c := v.conn(id)
	if c == nil && id <= maxStreamID && v.seen.use(id) {
		v.forgone.use(id)
	}
	return c
}

var (
	// errOver refuses a carrier of a stream that is over here.
	errOver = errors.New("the stream is over")
	// errOvertaken refuses a carrier that came after a later one, or after the
	// opener had lost it: the opener reads nothing of it.
	errOvertaken = errors.New("the device has given this carrier up")
)

// match finds the session that a stream belongs to. While a handshake of the
// attachment runs, the stream may belong to the session that comes of it: a
// device may use a session before the agent has seen the end of its handshake.
func (s *Server) match(id uint64, p *openPreface) (l servedLink, name *streamName, theirs sealedHalf, err error) {
	timeout := time.NewTimer(handshakeTimeout)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		a := s.attachments[id]
		if a == nil {
			s.mu.Unlock()
			return l, nil, theirs, ErrSpliced
		}
		links, changed, shaking := slices.Clone(a.links), a.changed, a.handshakes > 0
		s.mu.Unlock()
		for _, l := range slices.Backward(links) {
			name, theirs, err := p.verify(l.session.suite, l.session.secret)
			if !errors.Is(err, ErrSpliced) {
				return l, name, theirs, err
			}
		}
		if !shaking {
			return l, nil, theirs, ErrSpliced
		}
		if err := s.park(a, changed, timeout.C); err != nil {
			return l, nil, theirs, err
		}
	}
}

// resumption verifies the rest of a further carrier's preface, and returns which
// of the attachment's links of the session of l it was made for.
func (s *Server) resumption(id uint64, l servedLink, b, resume []byte) (servedLink, resumption, error) {
	s.mu.Lock()
	var links []servedLink
	if a := s.attachments[id]; a != nil {
		links = slices.Clone(a.links)
	}
	s.mu.Unlock()
	for _, o := range slices.Backward(links) {
		if o.session != l.session {
			continue
		}
		if at, err := verifyResumption(b, resume, o.binding); err != ErrSpliced {
			return o, at, err
		}
	}
	return l, resumption{}, ErrSpliced
}

// park waits until a handshake of the attachment has ended.
func (s *Server) park(a *attachment, changed <-chan struct{}, timeout <-chan time.Time) error {
	s.mu.Lock()
	if a.parked >= maxParked {
		s.mu.Unlock()
		return errBusy
	}
	a.parked++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.parked--
	}()
	select {
	case <-changed:
		return nil
	case <-timeout:
		return fmt.Errorf("wait for the session of a stream: %w", os.ErrDeadlineExceeded)
	case <-s.ctx.Done():
		return net.ErrClosed
	}
}
