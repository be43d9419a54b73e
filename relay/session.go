package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// session is one endpoint's connection.
type session struct {
	relay *Relay
	transport.Session
	attachment uint64          // how agents see this session if it is a device's
	ctx        context.Context // done once run has ended
	cancel     context.CancelFunc

	mu      sync.Mutex
	control transport.Stream // set once HELLO was read, nil again after a goodbye
}

// run serves the session until it is over. It runs on one goroutine; the
// forwarded streams of a device have their own.
func (s *session) run() {
	defer s.cancel()
	m := s.relay.metrics
	key := s.ClientKey()
	role := roleDevice
	if key != nil {
		role = roleAgent
	}
	m.sessions[role].Inc()
	defer m.sessions[role].Dec()

	var err error
	if key != nil {
		err = s.runAgent(wire.RouteOf(key))
	} else {
		err = s.runDevice()
	}
	code, text := endCode(err)
	if end, ok := errors.AsType[*wire.ClosedError](s.Err()); ok {
		code = end.Code // what ended the session first
	}
	s.Close(code, text)
	m.sessionsEnded.of(code).Inc()
	s.relay.log.Debug("session ended", "role", role, "code", code.String())
}

// endCode is what a session is closed with for the error that ended it, and a
// sentence for the endpoint.
func endCode(err error) (wire.Code, string) {
	if refused, ok := errors.AsType[*refusal](err); ok {
		return refused.code, refused.text
	}
	if closed, ok := errors.AsType[*wire.ClosedError](err); ok {
		return closed.Code, ""
	}
	_, reset := errors.AsType[*wire.ResetError](err)
	_, lost := errors.AsType[*transport.LostError](err)
	switch {
	case lost:
		return wire.CodeSilent, ""
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return wire.CodeSilent, fmt.Sprintf("nothing was said within %v", Patience)
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return wire.CodeOf(err), err.Error()
	case reset, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wire.CodeProtocol, "a stream ended before the frame that was due"
	}
	return wire.CodeInternal, ""
}

// refusal is what the relay decided about an endpoint.
type refusal struct {
	code wire.Code
	text string
}

func (r *refusal) Error() string { return r.code.String() + ": " + r.text }

// greet takes the control stream, the session's first, reads HELLO from it and
// answers.
func (s *session) greet() (transport.Stream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	st, err := s.AcceptStream(ctx)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	st.SetDeadline(deadline)
	p, err := expect(st, wire.FrameHello)
	if err != nil {
		return nil, err
	}
	hello, err := wire.ParseHello(p)
	if err != nil {
		return nil, err
	}
	version, ok := hello.Choose()
	if !ok {
		return nil, &refusal{wire.CodeVersion, fmt.Sprintf("this relay speaks minor versions %d to %d", wire.MinVersion, wire.MaxVersion)}
	}
	_, err = st.Write(wire.Welcome{Version: version}.Append(nil))
	return st, err
}

// expect reads the payload of the next frame, which must be of type t.
func expect(st transport.Stream, t wire.FrameType) ([]byte, error) {
	f, err := wire.ReadFrame(st)
	if err != nil {
		return nil, err
	}
	if f.Type != t {
		return nil, fmt.Errorf("%w: type 0x%02x where 0x%02x is due", wire.ErrMalformed, uint8(f.Type), uint8(t))
	}
	return f.Payload, nil
}

// hold keeps the control stream for a goodbye and reads it no further.
func (s *session) hold(control transport.Stream) {
	control.StopRead()
	s.mu.Lock()
	s.control = control
	s.mu.Unlock()
}

// goodbyeWithin bounds the wait for an endpoint that takes no bytes.
const goodbyeWithin = 100 * time.Millisecond

// sayGoodbye tells the endpoint that the session is about to end. It does not
// wait for the frame to arrive, and reports whether there was somebody to tell.
func (s *session) sayGoodbye(g wire.Goodbye) bool {
	s.mu.Lock()
	control := s.control
	s.control = nil
	s.mu.Unlock()
	if control == nil {
		return false
	}
	control.SetWriteDeadline(time.Now().Add(goodbyeWithin))
	_, err := control.Write(g.Append(nil))
	return err == nil
}

// runAgent registers the route and keeps its tokens up to date. Each stream
// that an agent opens carries one REGISTER.
func (s *session) runAgent(route wire.Route) error {
	control, err := s.greet()
	if err != nil {
		return err
	}
	a := &agent{session: s}
	defer s.relay.registry.remove(route, a)
	if err := a.update(control); err != nil {
		return err
	}
	if !s.relay.admit(route) {
		s.relay.log.Warn("agent not admitted: if it is yours, start the relay with --allow and its route", "route", route.String())
		return &refusal{wire.CodeNotAdmitted, "the operator has not admitted route " + route.String()}
	}
	if old := s.relay.registry.put(route, a); old != nil {
		old.session.Close(wire.CodeReplaced, "a newer connection with the same key took over")
	}
	registered := wire.Registered{Route: route}.Append(nil)
	if _, err := control.Write(registered); err != nil {
		return err
	}
	s.hold(control)
	for {
		st, err := s.AcceptStream(context.Background())
		if err != nil {
			return err
		}
		st.SetDeadline(time.Now().Add(Patience))
		if err := a.update(st); err != nil {
			return err
		}
		if _, err := st.Write(registered); err != nil {
			return err
		}
		st.CloseWrite() // fails only if the agent reads no more
		st.StopRead()
	}
}

// update takes the tokens of one REGISTER.
func (a *agent) update(st transport.Stream) error {
	p, err := expect(st, wire.FrameRegister)
	if err != nil {
		return err
	}
	reg, err := wire.ParseRegister(p)
	if err != nil {
		return err
	}
	a.tokens.Store(&reg.Tokens)
	return nil
}

// runDevice forwards each stream that the device opens.
func (s *session) runDevice() error {
	control, err := s.greet()
	if err != nil {
		return err
	}
	s.hold(control)
	for {
		st, err := s.AcceptStream(context.Background())
		if err != nil {
			return err
		}
		up, down, ok := s.relay.budget.Join()
		if !ok {
			s.relay.refuse(st, wire.CodeMemory)
			continue
		}
		s.relay.wait.Go(func() {
			defer up.Leave()
			defer down.Leave()
			s.relay.route(s, st, up, down)
		})
	}
}
