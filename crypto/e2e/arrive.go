package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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
		n.run(time.Duration(v.idle.Load()), v.handle)
		s.forgetLink(id, n)
	}, nil
}

// handle handles the device's frames.
func (v *served) handle(f Frame) error {
	if f.Type == frameLost {
		return v.heardLost(f.Payload)
	}
	return unknown(f)
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
