package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// errBusy is answered with wire.CodeBusy, every other refusal with
// wire.CodeRefused or wire.CodeTampered.
var errBusy = errors.New("there is no room for another handshake or stream")

// Handle takes one incoming stream and owns it. attachment is the relay's
// name for the device's connection that the stream came on. Handle returns at
// once; a stream that finds no room is reset with wire.CodeBusy.
func (s *Server) Handle(attachment uint64, st Stream) {
	s.mu.Lock()
	if s.closed || s.arrivals >= maxArrivals {
		s.mu.Unlock()
		st.Reset(wire.CodeBusy)
		return
	}
	s.arrivals++
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		live, err := s.arrive(attachment, st)
		s.mu.Lock()
		s.arrivals--
		s.mu.Unlock()
		if err != nil {
			s.refuse(st, err)
		} else if live != nil {
			live()
		}
	}()
}

// refuse resets a stream that became nothing.
func (s *Server) refuse(st Stream, err error) {
	code := wire.CodeRefused
	switch {
	case errors.Is(err, errBusy):
		code = wire.CodeBusy
	case isTimeout(err):
		code = wire.CodeTimeout
	case errors.Is(err, ErrReplay):
		code = wire.CodeTampered
	}
	st.Reset(code)
	s.cfg.Log.Debug("incoming stream refused", "code", code, "reason", err)
}

// arrive finds out what a stream is and makes it that. live, if not nil, is
// what then runs for as long as the stream lives.
func (s *Server) arrive(id uint64, st Stream) (live func(), err error) {
	stop := context.AfterFunc(s.ctx, func() { st.Reset(wire.CodeCancelled) })
	defer stop()
	if err := st.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	var b [openPrefaceLen + resumptionLen]byte
	if _, err := io.ReadFull(st, b[:1]); err != nil {
		return nil, fmt.Errorf("read the kind of a stream: %w", err)
	}
	switch b[0] {
	case kindControl:
		return s.control(id, st)
	case kindSealed, kindResumed:
		n := openPrefaceLen
		if b[0] == kindResumed {
			n = len(b)
		}
		if _, err := io.ReadFull(st, b[1:n]); err != nil {
			return nil, fmt.Errorf("read the preface of a stream: %w", err)
		}
		return nil, s.sealed(id, st, b[:n])
	}
	return nil, fmt.Errorf("%w: kind 0x%02x", ErrSpliced, b[0])
}

// control makes a stream a link or a pairing conversation.
func (s *Server) control(id uint64, st Stream) (live func(), err error) {
	if !s.beginHandshake(id) {
		return nil, errBusy
	}
	var l servedLink
	defer func() { s.endHandshake(id, l) }()
	t, cs, device, err := s.handshake(st)
	if err != nil {
		return nil, err
	}
	server := s.cfg.Identity.Pin()
	if cs.NegotiatedProtocol == alpnPairing {
		pc, err := newPairingConn(st, t, cs, server, device)
		if err != nil {
			return nil, err
		}
		pc.self, pc.peer = server, device
		return s.pairing(pc)
	}
	binding, err := export(cs, exporterBinding, server, device)
	if err != nil {
		return nil, err
	}
	var v *served
	if cs.NegotiatedProtocol == alpnJoin {
		if v, err = s.joining(t, device, binding); v == nil && err == nil {
			return func() { refuseJoin(st, t) }, nil
		}
	} else {
		v, err = s.beginning(cs, device)
	}
	if err != nil {
		return nil, err
	}
	if err := st.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	n := servedLink{newLink(v.session, st, t, binding, nil), v}
	if w, admitted := s.admit(v); admitted {
		n.say(Frame{Type: frameWelcome, Payload: w.payload()}) // before anything that the session says
		switch err := v.link(n.Link); err {
		case nil:
			l = n
		case errLinks:
			return nil, errBusy
		}
	}
	return func() {
		n.run(time.Duration(v.idle.Load()), unknown)
		s.forgetLink(id, n)
	}, nil
}

// beginning makes a session of a handshake.
func (s *Server) beginning(cs tls.ConnectionState, device Pin) (*served, error) {
	server := s.cfg.Identity.Pin()
	core, err := newSession(cs, server, device, s.pool, s.cfg.Log)
	if err != nil {
		return nil, err
	}
	core.self, core.peer = server, device
	v := &served{session: core}
	core.stranger = v.never
	if err := s.register(v); err != nil {
		return nil, err
	}
	s.wg.Go(func() {
		v.keep()
		v.wg.Wait()
		s.forget(v)
	})
	return v, nil
}

// joining reads a device's JOIN and returns the session that it names, or nil
// if there is none: the device's session ended here, or was never here.
func (s *Server) joining(t *tls.Conn, device Pin, binding []byte) (*served, error) {
	f, err := ReadFrame(t)
	if err != nil {
		return nil, fmt.Errorf("read JOIN: %w", err)
	}
	if f.Type != frameJoin {
		return nil, fmt.Errorf("%w: type 0x%02x instead of JOIN", ErrFrame, f.Type)
	}
	j, err := parseJoin(f.Payload)
	if err != nil {
		return nil, err
	}
	v := s.session(j.session, device)
	if v == nil || !j.verify(v.secret, binding) {
		return nil, nil
	}
	for _, c := range v.open() {
		if j.over(c.name.id) {
			c.leave(wire.CodeNone)
		}
	}
	return v, nil
}

// refuseJoin tells a device that its session is not here any more.
func refuseJoin(st Stream, t *tls.Conn) {
	farewell(st, func() error {
		if err := WriteFrame(t, *goAwayFrame(wire.CodeNone, "the server's agent does not know this session any more")); err != nil {
			return err
		}
		return t.CloseWrite()
	})
}

// handshake runs the handshake. Until it has returned nil the device's key is
// not proven, and no key may be derived and no word be sent.
func (s *Server) handshake(st Stream) (*tls.Conn, tls.ConnectionState, Pin, error) {
	t := tls.Server(&hop{Stream: st}, s.tls)
	if err := t.Handshake(); err != nil {
		return nil, tls.ConnectionState{}, Pin{}, fmt.Errorf("shake hands with a device: %w", err)
	}
	device, cs, err := verified(t, t.ConnectionState().NegotiatedProtocol)
	if err != nil {
		return nil, cs, device, err
	}
	return t, cs, device, nil
}

// admit asks whether the device of a registered session may come in, and ends
// the session if not. The session is known to Revoke by now, so that a device
// that is being revoked cannot slip through between the two.
func (s *Server) admit(v *served) (Welcome, bool) {
	w, err := s.cfg.Admit(v.peer)
	if err != nil {
		s.cfg.Log.Info("device refused", "device", v.peer, "reason", err)
		v.goAway(wire.CodeRefused, "this device is not on the server's list of devices")
		return Welcome{}, false
	}
	if w, err = w.withDefaults(); err != nil {
		s.cfg.Log.Error("session refused", "device", v.peer, "reason", err)
		v.goAway(wire.CodeRefused, "the server's agent is set up wrongly; its log says how")
		return Welcome{}, false
	}
	v.maxStreams.Store(int64(2 * w.MaxStreams))
	v.idle.Store(int64(w.Idle))
	return w, true
}

// pairing takes a place for a pairing conversation.
func (s *Server) pairing(pc *PairingConn) (live func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairings >= maxPairings {
		return nil, errBusy
	}
	if err := pc.st.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	s.pairings++
	return func() {
		ctx, cancel := context.WithTimeout(s.ctx, pairingTimeout)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { pc.st.Reset(wire.CodeTimeout) })
		s.cfg.Pair(ctx, pc)
		if stop() {
			pc.Close()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pairings--
	}, nil
}

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
	case err != nil && fresh:
		c.Reset(wire.CodeCancelled)
	}
	if err != nil || !fresh {
		return err
	}
	select {
	case s.accepted <- c:
	default:
		c.Reset(wire.CodeBusy)
	}
	return nil
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

// errOver refuses a carrier of a stream that is over here.
var errOver = errors.New("the stream is over")

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
