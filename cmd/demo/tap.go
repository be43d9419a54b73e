package main

import (
	"context"
	"sync"

	"github.com/blindrelay/blindrelay/cmd/demo/internal/cinema"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport"
)

// tap shows what a relay sees: it stands between the relay and its listener
// and passes on everything that the relay reads from forwarded streams. The
// relay itself is the real one and knows nothing of it.
type tap struct {
	relay.Listener
	wire *cinema.Wire
}

func (t tap) Accept(ctx context.Context) (transport.Session, error) {
	s, err := t.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return tappedSession{s, t.wire}, nil
}

type tappedSession struct {
	transport.Session
	wire *cinema.Wire
}

// AcceptStream taps what a device sends. Its control stream is in it too.
func (s tappedSession) AcceptStream(ctx context.Context) (transport.Stream, error) {
	st, err := s.Session.AcceptStream(ctx)
	if err != nil || s.ClientKey() != nil {
		return st, err
	}
	return tappedStream{Stream: st, seen: func(p []byte) { s.wire.Seen(cinema.ToAgent, p) }, over: func() {}}, nil
}

// TryOpenStream taps what an agent sends on a stream that the relay opened to it.
func (s tappedSession) TryOpenStream() (transport.Stream, error) {
	st, err := s.Session.TryOpenStream()
	if err != nil {
		return nil, err
	}
	s.wire.StreamOpened()
	return tappedStream{Stream: st, seen: func(p []byte) { s.wire.Seen(cinema.ToDevice, p) }, over: sync.OnceFunc(s.wire.StreamClosed)}, nil
}

type tappedStream struct {
	transport.Stream
	seen func([]byte)
	over func()
}

func (s tappedStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 {
		s.seen(p[:n])
	}
	if err != nil {
		s.over()
	}
	return n, err
}
