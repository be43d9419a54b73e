package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// route finds the agent that a device's stream asks for and forwards between
// the two until both directions are over.
func (r *Relay) route(s *session, st transport.Stream) {
	a, code := r.ask(st)
	if code != wire.CodeNone {
		r.refuse(st, code)
		return
	}
	// Memory is promised to none but those whom an agent lets in.
	up, down, ok := r.budget.Join()
	if !ok {
		r.refuse(st, wire.CodeMemory)
		return
	}
	defer up.Leave()
	defer down.Leave()
	to, code := a.open(s.attachment)
	if code != wire.CodeNone {
		r.refuse(st, code)
		return
	}
	r.metrics.streams.Inc()
	defer r.metrics.streams.Dec()
	r.metrics.streamsOpened.Inc()
	j := newJoint(
		end{st, s.ctx, wire.CodeDeviceGone},
		end{to, a.session.ctx, wire.CodeAgentGone},
		up, down, r.metrics)
	r.metrics.streamsEnded.of(j.forward()).Inc()
}

// ask reads OPEN and finds the agent that it asks for. The code says why there
// is none.
func (r *Relay) ask(st transport.Stream) (*agent, wire.Code) {
	place := r.waiting.enter(st)
	open, err := readOpen(st)
	r.waiting.leave(place)
	if err != nil {
		return nil, openCode(err)
	}
	a := r.registry.find(open.Route)
	if a == nil {
		return nil, wire.CodeRouteUnknown
	}
	if !a.allows(open.Token) {
		return nil, wire.CodeTokenRefused
	}
	return a, wire.CodeNone
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

func readOpen(st transport.Stream) (wire.Open, error) {
	st.SetReadDeadline(time.Now().Add(Patience))
	p, err := expect(st, wire.FrameOpen)
	if err != nil {
		return wire.Open{}, err
	}
	open, err := wire.ParseOpen(p)
	if err != nil {
		return wire.Open{}, err
	}
	return open, st.SetReadDeadline(time.Time{})
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
