package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// session is one endpoint's connection.
type session struct {
	relay *Relay
	transport.Session
	attachment uint64          // how agents see this session if it is a device's
	source     net.Addr        // where it came from, as limit counts it
	ctx        context.Context // done once the session is over
	cancel     context.CancelFunc
	agent      *agent // set by the session's goroutine once it is registered
	welcomed   bool   // guarded by relay.mu

	mu        sync.Mutex
	control   transport.Stream        // set once the endpoint was greeted, nil again after a goodbye
	told      map[wire.Code]time.Time // when the endpoint heard of a limit; nil before the first
	measuring bool                    // a measurement runs
	measured  int64                   // bytes, by those that have ended
}

// run greets the endpoint and serves it until the session is over.
func (s *session) run() {
	role, begin := roleDevice, s.beginDevice
	if s.ClientKey() != nil {
		role, begin = roleAgent, s.beginAgent
	}
	s.relay.metrics.sessions[role].Inc()
	accepted, err := begin()
	if err != nil {
		s.end(role, err)
		return
	}
	// Greeting has grown this goroutine's stack. A session idles on a new one.
	s.relay.wait.Go(func() { s.end(role, s.accept(accepted)) })
}

// accept hands over the streams that the endpoint opens until one is wrong or
// the session is over.
func (s *session) accept(accepted func(transport.Stream) error) error {
	for {
		st, err := s.AcceptStream(context.Background())
		if err != nil {
			return err
		}
		if err := accepted(st); err != nil {
			return err
		}
	}
}

// end closes the session for what ended it, and forgets it.
func (s *session) end(role string, err error) {
	code, text := endCode(err)
	if end, ok := errors.AsType[*wire.ClosedError](s.Err()); ok {
		code = end.Code // what ended the session first
		if end.Remote && code != wire.CodeNone && !code.FromEndpoint() {
			code = wire.CodeCancelled // an endpoint cannot speak in the relay's name
		}
	}
	s.Close(code, text)
	s.cancel()
	if s.agent != nil {
		s.relay.registry.remove(s.agent)
	}
	s.relay.forget(s)
	s.relay.metrics.sessions[role].Dec()
	s.relay.metrics.sessionsEnded.of(code).Inc()
	s.relay.log.Debug("session ended", "role", role, "code", code.String(), "from", s.relay.from(s.RemoteAddr()))
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
	place := s.relay.greeting.enter(s)
	defer s.relay.greeting.leave(place)
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
	if !s.relay.welcome(s) {
		return nil, &refusal{wire.CodeDraining, drainText}
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
	s.askToLeave() // a drain that began before did not find the control stream
}

// goodbyeWithin bounds the wait for an endpoint that takes no bytes.
const goodbyeWithin = 100 * time.Millisecond

// sayGoodbye tells the endpoint that the session is about to end, and an agent
// before how much of its volume is used: nothing can follow a goodbye. It does
// not wait for the frames to arrive, and reports whether there was somebody to
// tell.
func (s *session) sayGoodbye(g wire.Goodbye) bool {
	s.mu.Lock()
	control := s.control
	s.control = nil
	s.mu.Unlock()
	if control == nil {
		return false
	}
	var b []byte
	if s.agent != nil { // it was set before control was
		b = s.relay.lastReceipt(s.agent.group)
	}
	control.SetWriteDeadline(time.Now().Add(goodbyeWithin))
	_, err := control.Write(g.Append(b))
	return err == nil
}

// beginAgent greets an agent and registers its route. From then on each stream
// that it opens carries one REGISTER or MEASURE.
func (s *session) beginAgent() (accepted func(transport.Stream) error, err error) {
	control, err := s.greet()
	if err != nil {
		return nil, err
	}
	a := &agent{session: s, route: wire.RouteOf(s.ClientKey())}
	p, err := expect(control, wire.FrameRegister)
	if err != nil {
		return nil, err
	}
	reg, err := wire.ParseRegister(p)
	if err != nil {
		return nil, err
	}
	v, err := s.relay.judge(admit.Request{Route: a.route, Ticket: reg.Ticket})
	if err != nil {
		return nil, err
	}
	replaced, no := s.relay.registry.put(a, reg, v)
	if no != nil {
		return nil, no
	}
	s.agent = a
	for _, old := range replaced {
		old.session.Close(wire.CodeReplaced, "a newer agent with the same key took over")
	}
	s.relay.abide(a.group)
	if err := a.confirm(control, v); err != nil {
		return nil, err
	}
	s.hold(control)
	s.relay.tellTerms(a.group)
	return a.later, nil
}

// later takes a stream on which an agent replaces its tokens or measures.
func (a *agent) later(st transport.Stream) error {
	st.SetDeadline(time.Now().Add(Patience))
	f, err := wire.ReadFrame(st)
	if err != nil {
		return err
	}
	switch f.Type {
	case wire.FrameRegister:
		return a.update(st, f.Payload)
	case wire.FrameMeasure:
		m, err := wire.ParseMeasure(f.Payload)
		if err != nil {
			return err
		}
		a.session.relay.wait.Go(func() { a.session.measure(st, m, a.group) })
		return nil
	}
	return fmt.Errorf("%w: type 0x%02x where 0x%02x is due", wire.ErrMalformed, uint8(f.Type), uint8(wire.FrameRegister))
}

// update takes the tokens and the ticket of one more REGISTER.
func (a *agent) update(st transport.Stream, payload []byte) error {
	reg, err := wire.ParseRegister(payload)
	if err != nil {
		return err
	}
	if reg.Instance != a.group.instance {
		return fmt.Errorf("%w: REGISTER of another instance on the same connection", wire.ErrMalformed)
	}
	v, err := a.session.relay.judge(admit.Request{Route: a.route, Ticket: reg.Ticket})
	if err != nil {
		return err
	}
	a.session.relay.registry.update(a, reg, v)
	a.session.relay.abide(a.group)
	if err := a.confirm(st, v); err != nil {
		return err
	}
	a.session.relay.tellTerms(a.group)
	st.CloseWrite() // fails only if the agent reads no more
	st.StopRead()
	return nil
}

// confirm answers a REGISTER.
func (a *agent) confirm(st transport.Stream, v verdict) error {
	_, err := st.Write(wire.Registered{Route: a.route, Valid: v.valid()}.Append(nil))
	return err
}

// beginDevice greets a device. From then on each stream that it opens is to be
// forwarded, or to be measured with.
func (s *session) beginDevice() (accepted func(transport.Stream) error, err error) {
	control, err := s.greet()
	if err != nil {
		return nil, err
	}
	s.hold(control)
	return s.serve, nil
}

// serve starts to serve a device's stream.
func (s *session) serve(st transport.Stream) error {
	s.relay.wait.Go(func() { s.relay.route(s, st) })
	return nil
}
