package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// route serves a device's stream: it measures, or finds the agent that the
// stream asks for and forwards between the two until both directions are over.
func (r *Relay) route(s *session, st transport.Stream) {
	f, code := r.ask(st)
	if code != wire.CodeNone {
		r.refuse(st, code)
		return
	}
	if f.Type == wire.FrameMeasure {
		r.measure(s, st, f.Payload)
		return
	}
	open, err := wire.ParseOpen(f.Payload)
	if err != nil {
		r.refuse(st, openCode(err))
		return
	}
	token := open.Token.Hash()
	g, code := r.registry.find(open.Route, token)
	if code != wire.CodeNone {
		r.refuse(st, code)
		return
	}
	slot, over := r.registry.take(g, token, open.Urgency)
	if over != nil {
		r.refuse(st, over.Code)
		r.met(s, g, *over)
		return
	}
	defer r.registry.give(slot)
	r.watch(g)
	// Memory is promised to none but those whom an agent lets in.
	up, down, ok := r.budget.Join()
	if !ok {
		r.refuse(st, wire.CodeMemory)
		r.met(s, g, wire.Limit{Code: wire.CodeMemory, Limit: uint64(r.budget.Stats().Total)})
		return
	}
	defer up.Leave()
	defer down.Leave()
	p, to, code := r.place(slot, s)
	if code != wire.CodeNone {
		r.refuse(st, code)
		return
	}
	defer r.registry.leave(p)
	r.metrics.streams.Inc()
	defer r.metrics.streams.Dec()
	r.metrics.streamsOpened.Inc()
	j := newJoint(
		end{st, s.ctx, wire.CodeDeviceGone},
		end{to, p.agent.session.ctx, wire.CodeAgentGone},
		up, down, slot, r)
	r.metrics.streamsEnded.of(j.forward()).Inc()
}

// ask reads OPEN or MEASURE. The code says why there is none.
func (r *Relay) ask(st transport.Stream) (wire.Frame, wire.Code) {
	place := r.waiting.enter(st)
	f, err := readAsked(st)
	r.waiting.leave(place)
	if err != nil {
		return wire.Frame{}, openCode(err)
	}
	return f, wire.CodeNone
}

// measure serves a device that an agent lets in.
func (r *Relay) measure(s *session, st transport.Stream, payload []byte) {
	m, err := wire.ParseMeasure(payload)
	if err != nil {
		r.refuse(st, openCode(err))
		return
	}
	g, code := r.registry.find(m.Route, m.Token.Hash())
	if code != wire.CodeNone {
		s.refuseMeasure(st, code)
		return
	}
	s.measure(st, m, g)
}

// place opens a stream to the agent over the connection where the device's
// streams go. One that ended just now makes way for the next.
func (r *Relay) place(slot *slot, device *session) (*place, transport.Stream, wire.Code) {
	for {
		p := r.registry.enter(slot, device)
		if p == nil {
			return nil, nil, wire.CodeAgentGone
		}
		to, code := p.agent.open(device.attachment)
		if code == wire.CodeNone {
			return p, to, code
		}
		r.registry.leave(p)
		if code != wire.CodeAgentGone || p.agent.session.Err() == nil {
			return nil, nil, code
		}
	}
}

// open opens a stream to the agent and says whose device's it is. The code
// says why there is none.
func (a *agent) open(attachment uint64) (transport.Stream, wire.Code) {
	to, err := a.session.TryOpenStream()
	if errors.Is(err, transport.ErrNoStream) {
		return nil, wire.CodeTooManyStreams
	}
	if err != nil {
		return nil, wire.CodeAgentGone
	}
	to.SetWriteDeadline(time.Now().Add(Patience))
	if _, err := to.Write(wire.Incoming{Attachment: attachment}.Append(nil)); err != nil {
		code := codeOf(err, wire.CodeAgentGone)
		if code == wire.CodeNone {
			code = wire.CodeRefused // the agent reads nothing of a new stream
		}
		to.Reset(code)
		return nil, code
	}
	to.SetWriteDeadline(time.Time{})
	return to, wire.CodeNone
}

func readAsked(st transport.Stream) (wire.Frame, error) {
	st.SetReadDeadline(time.Now().Add(Patience))
	f, err := wire.ReadFrame(st)
	if err != nil {
		return wire.Frame{}, err
	}
	if f.Type != wire.FrameOpen && f.Type != wire.FrameMeasure {
		return wire.Frame{}, fmt.Errorf("%w: type 0x%02x where 0x%02x is due", wire.ErrMalformed, uint8(f.Type), uint8(wire.FrameOpen))
	}
	return f, st.SetReadDeadline(time.Time{})
}

// openCode is what a stream without a valid OPEN is refused with.
func openCode(err error) wire.Code {
	_, reset := errors.AsType[*wire.ResetError](err)
	switch {
	case reset:
		return wire.CodeCancelled
	case errors.Is(err, os.ErrDeadlineExceeded):
		return wire.CodeSilent
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		return wire.CodeOf(err)
	case errors.Is(err, net.ErrClosed):
		return wire.CodeMemory // pushed out by newer streams
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wire.CodeProtocol
	}
	return wire.CodeDeviceGone
}

// refuse ends a stream that was not forwarded.
func (r *Relay) refuse(st transport.Stream, code wire.Code) {
	st.Reset(code)
	r.metrics.streamsRefused.of(code).Inc()
}
