package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// ClientConfig is a device's side of a session.
type ClientConfig struct {
	Identity *Identity                                 // required
	Server   Pin                                       // required: the agent's pin, from the invite
	Open     func(ctx context.Context) (Stream, error) // opens another stream to the same agent over the same relay connection; not used for pairing
	Log      *slog.Logger                              // nil: nothing is logged
}

// maxSessionStreams is how many streams one session may open in its life.
const maxSessionStreams = 1 << 32

// Session is a device's session with an agent. It must be closed.
type Session struct {
	*session
	openHop func(ctx context.Context) (Stream, error)
	binding []byte

	welcomed chan struct{} // closed by the control reader when welcome is set
	welcome  Welcome

	wg sync.WaitGroup // run

	idMu   sync.Mutex
	nextID uint64
}

// Connect makes a session on st, the first stream through the relay, and owns
// st from the call on, also if it fails. It returns as soon as the device may
// send. The agent has not admitted the device yet then: that is sure once
// [Session.Welcome] returns nil or a Read on a stream of the session returns
// content. Connect takes at most 10 s, less if ctx ends.
func Connect(ctx context.Context, st Stream, cfg ClientConfig) (*Session, error) {
	if cfg.Open == nil {
		st.Reset(wire.CodeCancelled)
		return nil, errors.New("a session needs a way to open streams: ClientConfig.Open is nil")
	}
	t, cs, err := dial(ctx, st, cfg, alpnSession)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	s, err := startSession(st, t, cs, cfg)
	if err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	return s, nil
}

// dial runs a device's handshake on st. After an error st is reset.
func dial(ctx context.Context, st Stream, cfg ClientConfig, alpn string) (*tls.Conn, tls.ConnectionState, error) {
	fail := func(err error) (*tls.Conn, tls.ConnectionState, error) {
		st.Reset(wire.CodeCancelled)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, tls.ConnectionState{}, err
	}
	if cfg.Identity == nil {
		return fail(errors.New("a device needs an identity: ClientConfig.Identity is nil"))
	}
	stop := context.AfterFunc(ctx, func() { st.Reset(wire.CodeCancelled) })
	defer stop()
	if err := st.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return fail(err)
	}
	t := tls.Client(&hop{Stream: st, prefix: []byte{kindControl}}, clientTLS(cfg.Identity, cfg.Server, alpn))
	if err := t.Handshake(); err != nil {
		if isTimeout(err) {
			err = errors.New("the server did not answer within 10 s")
		}
		return fail(err)
	}
	_, cs, err := verified(t, alpn)
	if err != nil {
		return fail(err)
	}
	if !stop() {
		return fail(ctx.Err())
	}
	if err := st.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	return t, cs, nil
}

func startSession(st Stream, t *tls.Conn, cs tls.ConnectionState, cfg ClientConfig) (*Session, error) {
	device := cfg.Identity.Pin()
	core, err := newSession(st, t, cs, cfg.Server, device, newBufferPool(), logOr(cfg.Log))
	if err != nil {
		return nil, err
	}
	core.self, core.peer = device, cfg.Server
	binding, err := export(cs, exporterBinding, cfg.Server, device)
	if err != nil {
		return nil, err
	}
	s := &Session{session: core, openHop: cfg.Open, binding: binding, welcomed: make(chan struct{}), nextID: 1}
	// An agent that admits the device says so at once.
	s.wg.Go(func() { s.run(handshakeTimeout, s.handle) })
	return s, nil
}

// handle handles the agent's frames.
func (s *Session) handle(f Frame) error {
	if f.Type != frameWelcome {
		return unknown(f)
	}
	select {
	case <-s.welcomed:
		return fmt.Errorf("%w: a second WELCOME", ErrFrame)
	default:
	}
	w, err := parseWelcome(f.Payload)
	if err != nil {
		return err
	}
	s.welcome = w
	s.setIdle(w.Idle)
	close(s.welcomed)
	return nil
}

// OpenStream opens a sealed stream. It takes no round trip: the agent learns
// of the stream with the first Write, which may be empty. The error is
// [ErrTooManyStreams], the session's end, or ClientConfig.Open's.
func (s *Session) OpenStream(ctx context.Context) (*Conn, error) {
	if s.ended.Load() {
		return nil, s.ending()
	}
	id, err := s.takeID()
	if err != nil {
		return nil, err
	}
	st, err := s.openHop(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a stream through the relay: %w", err)
	}
	c, err := s.newStream(st, id)
	if err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, err
	}
	return c, nil
}

// takeID returns a stream number. Not every number has to become a stream.
func (s *Session) takeID() (uint64, error) {
	s.idMu.Lock()
	defer s.idMu.Unlock()
	if s.nextID > maxSessionStreams {
		return 0, errors.New("the session has used up its stream numbers; connect again")
	}
	s.nextID++
	return s.nextID - 1, nil
}

func (s *Session) newStream(st Stream, id uint64) (*Conn, error) {
	c, err := openConn(s.session, st, id)
	if err != nil {
		return nil, err
	}
	limit := defaultMaxStreams
	select {
	case <-s.welcomed:
		limit = s.welcome.MaxStreams
	default:
	}
	return c, s.add(c, limit)
}

// Welcome waits until the agent has admitted the device, the session has
// ended, or ctx has. A refusal is a [*GoAwayError].
func (s *Session) Welcome(ctx context.Context) (Welcome, error) {
	select {
	case <-s.welcomed:
		return s.welcome, nil
	case <-s.done:
		return Welcome{}, s.reason()
	case <-ctx.Done():
		return Welcome{}, context.Cause(ctx)
	}
}

// Done is closed when the session has ended. All its streams have failed then.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session ended, nil before: a [*GoAwayError] if the agent
// ended it, a [*ClosedError] if this side did, else what happened.
func (s *Session) Err() error { return s.reason() }

// Binding returns 32 bytes that only the two endpoints of this session can
// know and that both compute alike.
func (s *Session) Binding() []byte { return append([]byte(nil), s.binding...) }

// Close ends the session and its streams, tells the agent code and reason (at
// most 256 bytes), and waits until nothing of the session runs: at most a
// second. The error says that the agent could not be told. Close also releases
// a session that ended by itself.
func (s *Session) Close(code wire.Code, reason string) error {
	s.goAway(code, reason)
	s.quiesce()
	s.wg.Wait()
	return s.farewellErr
}

func logOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
