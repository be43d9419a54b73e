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
	var b [openPrefaceLen]byte
	if _, err := io.ReadFull(st, b[:1]); err != nil {
		return nil, fmt.Errorf("read the kind of a stream: %w", err)
	}
	switch b[0] {
	case kindControl:
		return s.control(id, st)
	case kindSealed:
		if _, err := io.ReadFull(st, b[1:]); err != nil {
			return nil, fmt.Errorf("read the preface of a stream: %w", err)
		}
		return nil, s.sealed(id, st, b[:])
	}
	return nil, fmt.Errorf("%w: kind 0x%02x", ErrSpliced, b[0])
}

// control makes a stream a session or a pairing conversation.
func (s *Server) control(id uint64, st Stream) (live func(), err error) {
	if !s.beginHandshake(id) {
		return nil, errBusy
	}
	var v *served
	defer func() { s.endHandshake(id, v) }()
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
	core, err := newSession(st, t, cs, server, device, s.pool, s.cfg.Log)
	if err != nil {
		return nil, err
	}
	core.self, core.peer = server, device
	n := &served{session: core}
	if err := s.register(n); err != nil {
		return nil, err
	}
	w, admitted := s.admit(n)
	if admitted {
		v = n
	}
	return func() { s.serve(id, n, w) }, nil
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
	return t, cs, device, st.SetDeadline(time.Time{})
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
	v.maxStreams = 2 * w.MaxStreams
	v.setIdle(w.Idle)
	return w, true
}

// serve runs a session to its end.
func (s *Server) serve(id uint64, v *served, w Welcome) {
	defer s.forget(id, v)
	if !v.ended.Load() {
		if err := v.send(Frame{Type: frameWelcome, Payload: w.payload()}); err != nil {
			v.end(fmt.Errorf("welcome the device: %w", err), nil, wire.CodeCancelled)
		}
	}
	v.run(time.Duration(v.idle.Load()), unknown)
}

// pairing takes a place for a pairing conversation.
func (s *Server) pairing(pc *PairingConn) (live func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairings >= maxPairings {
		return nil, errBusy
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

// sealed makes a stream with this preface a Conn of its session.
func (s *Server) sealed(id uint64, st Stream, preface []byte) error {
	p, err := parseOpenPreface(preface)
	if err != nil {
		return err
	}
	v, name, in, err := s.match(id, &p)
	if err != nil {
		return err
	}
	c, err := acceptConn(v.session, st, name, in)
	if err != nil {
		return err
	}
	if err := st.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if err := v.take(c, p.id); err != nil {
		return err
	}
	if _, err := s.cfg.Admit(v.peer); err != nil {
		v.goAway(wire.CodeRefused, "this device is no longer on the server's list of devices")
		return fmt.Errorf("device %s: %w", v.peer, err)
	}
	select {
	case s.accepted <- c:
		return nil
	default:
		c.Reset(wire.CodeBusy)
		return errBusy
	}
}

// take registers a stream under its number, which must be new.
func (v *served) take(c *Conn, id uint64) error {
	v.mu.Lock()
	fresh := v.seen.use(id)
	v.mu.Unlock()
	if !fresh {
		v.attacked(ErrReplay)
		return ErrReplay
	}
	if err := v.add(c, v.maxStreams); err != nil {
		if err == ErrTooManyStreams {
			err = errBusy
		}
		return err
	}
	return nil
}

// match finds the session that a stream belongs to. While a handshake of the
// attachment runs, the stream may belong to the session that comes of it: a
// device may use a session before the agent has seen the end of its handshake.
func (s *Server) match(id uint64, p *openPreface) (*served, *streamName, *half, error) {
	timeout := time.NewTimer(handshakeTimeout)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		a := s.attachments[id]
		if a == nil {
			s.mu.Unlock()
			return nil, nil, nil, ErrSpliced
		}
		sessions, changed, shaking := slices.Clone(a.sessions), a.changed, a.handshakes > 0
		s.mu.Unlock()
		for _, v := range sessions {
			name, in, err := p.verify(v.suite, v.secret)
			if !errors.Is(err, ErrSpliced) {
				return v, name, in, err
			}
		}
		if !shaking {
			return nil, nil, nil, ErrSpliced
		}
		if err := s.park(a, changed, timeout.C); err != nil {
			return nil, nil, nil, err
		}
	}
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
