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
	Open     func(ctx context.Context) (Stream, error) // opens another stream to the same agent over the same relay connection, of the urgency that ctx has; not used for pairing
	Log      *slog.Logger                              // nil: nothing is logged
}

// maxSessionStreams is how many streams one session may open in its life.
const maxSessionStreams = 1 << 32

// Session is a device's session with an agent. It outlives the relay
// connections that carry it: see [Session.Join]. It must be closed.
type Session struct {
	*session
	cfg     ClientConfig
	first   *Link
	binding []byte
	running sync.WaitGroup // keep

	welcomed chan struct{} // closed by the first WELCOME

	mu      sync.Mutex
	welcome Welcome // the latest one
	nextID  uint64
}

// Connect makes a session on st, the first stream through a relay connection,
// and owns st from the call on, also if it fails; cfg.Open opens further ones.
// It returns as soon as the device may send. The agent has not admitted the
// device yet then: that is sure once [Session.Welcome] returns nil or a Read on
// a stream of the session returns content. Connect takes at most 10 s, less if
// ctx ends.
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

// Join takes the session over a further relay connection: st is its first
// stream, which Join owns, and open opens further ones. From then on streams
// are opened there, and those that have lost their carrier go on there. It
// returns when the agent has taken the link, within 10 s, or less if ctx ends.
// An agent that no longer has the session ends it.
func (s *Session) Join(ctx context.Context, st Stream, open func(context.Context) (Stream, error)) (*Link, error) {
	l, err := s.join(ctx, st, open)
	if err != nil {
		return nil, fmt.Errorf("go on with the session on another connection: %w", err)
	}
	select {
	case <-l.taken:
		return l, nil
	case <-l.done:
		if err = l.unwelcome(); s.ended.Load() {
			err = s.reason() // a goodbye on another link may have come first
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
		l.end(err)
	}
	return nil, fmt.Errorf("go on with the session on another connection: %w", err)
}

func (s *Session) join(ctx context.Context, st Stream, open func(context.Context) (Stream, error)) (*Link, error) {
	t, cs, err := dial(ctx, st, s.cfg, alpnJoin)
	if err != nil {
		return nil, err
	}
	binding, err := export(cs, exporterBinding, s.cfg.Server, s.cfg.Identity.Pin())
	if err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, err
	}
	l := newLink(s.session, st, t, binding, open)
	j := join{session: s.id}
	if j.mac, err = joinMAC(s.secret, binding); err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, err
	}
	s.mu.Lock()
	j.next = s.nextID
	for _, c := range s.open() {
		j.streams = append(j.streams, c.name.id)
	}
	s.mu.Unlock()
	l.say(Frame{Type: frameJoin, Payload: j.payload()})
	return l, s.start(l)
}

// start runs a link.
func (s *Session) start(l *Link) error {
	serve := func() {
		l.run(handshakeTimeout, func(f Frame) error { return s.handle(l, f) })
		if l == s.first && !s.isWelcome() {
			s.end(l.unwelcome(), nil, wire.CodeCancelled)
		}
	}
	if !s.run(serve) {
		l.st.Reset(wire.CodeCancelled)
		return s.ending()
	}
	return nil
}

// unwelcome is why a link ended before WELCOME: for all that the device knows
// the agent has not seen the end of the handshake.
func (l *Link) unwelcome() error {
	err := l.reason()
	if errors.Is(err, errControl) {
		err = handshakeError(l.tls.NetConn().(*hop), err)
	}
	return err
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
	h := &hop{Stream: st, prefix: []byte{kindControl}}
	t := tls.Client(h, clientTLS(cfg.Identity, cfg.Server, alpn))
	if err := t.Handshake(); err != nil {
		if isTimeout(err) {
			return fail(errors.New("the server did not answer within 10 s"))
		}
		return fail(handshakeError(h, err))
	}
	_, cs, err := verified(t, alpn)
	if err != nil {
		return fail(fmt.Errorf("%w: %w", ErrHandshake, err))
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
	core, err := newSession(cs, cfg.Server, device, newBufferPool(), logOr(cfg.Log))
	if err != nil {
		return nil, err
	}
	core.self, core.peer = device, cfg.Server
	binding, err := export(cs, exporterBinding, cfg.Server, device)
	if err != nil {
		return nil, err
	}
	s := &Session{session: core, cfg: cfg, binding: binding, welcomed: make(chan struct{}), nextID: 1}
	s.first = newLink(core, st, t, binding, cfg.Open)
	if err := s.link(s.first); err != nil {
		return nil, err
	}
	if err := s.start(s.first); err != nil {
		return nil, err
	}
	s.running.Go(s.keep)
	return s, nil
}

func (s *Session) isWelcome() bool {
	select {
	case <-s.welcomed:
		return true
	default:
		return false
	}
}

// handle handles the agent's frames.
func (s *Session) handle(l *Link, f Frame) error {
	switch f.Type {
	case frameWelcome:
	case frameFull:
		return s.heardFull(f.Payload)
	default:
		return unknown(f)
	}
	select {
	case <-l.taken:
		return fmt.Errorf("%w: a second WELCOME", ErrFrame)
	default:
	}
	w, err := parseWelcome(f.Payload)
	if err != nil {
		return err
	}
	s.idle.Store(int64(w.Idle))
	s.mu.Lock()
	s.welcome = w
	s.mu.Unlock()
	if l == s.first {
		close(s.welcomed)
	} else if err := s.link(l); err != nil {
		l.end(err)
		return nil
	}
	close(l.taken)
	return nil
}

// OpenStream opens a sealed stream. It takes no round trip: the agent learns
// of the stream with the first Write, which may be empty. While the session has
// no link it waits for one. The urgency that ctx has from [WithUrgency] is that
// of all the stream's carriers. The error is [ErrTooManyStreams], the session's
// end, or ctx's.
func (s *Session) OpenStream(ctx context.Context) (*Conn, error) {
	for {
		if s.ended.Load() {
			return nil, s.ending()
		}
		l := s.awaitLink(ctx.Done())
		if l == nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("open a stream through the relay: %w", context.Cause(ctx))
			}
			continue // ended
		}
		st, err := l.open(ctx)
		if err == nil {
			return s.newStream(l, st, UrgencyOf(ctx))
		}
		err = fmt.Errorf("open a stream through the relay: %w", err)
		if ctx.Err() != nil {
			return nil, err
		}
		l.end(err)
	}
}

// newStream makes a stream with st as its first carrier. A JOIN sees both its
// number and the stream, or neither.
func (s *Session) newStream(l *Link, st Stream, urgency wire.Urgency) (*Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := defaultMaxStreams
	if s.isWelcome() {
		limit = s.welcome.MaxStreams
	}
	err := errStreamNumbers
	if s.nextID <= maxSessionStreams {
		var c *Conn
		if c, err = openConn(s.session, l, st, s.nextID, limit, urgency); err == nil {
			s.nextID++
			return c, nil
		}
	}
	st.Reset(wire.CodeCancelled)
	return nil, err
}

var errStreamNumbers = errors.New("the session has used up its stream numbers; connect again")

// Welcome waits until the agent has admitted the device, the session has
// ended, or ctx has. A refusal is a [*GoAwayError].
func (s *Session) Welcome(ctx context.Context) (Welcome, error) {
	select {
	case <-s.welcomed:
		s.mu.Lock()
		defer s.mu.Unlock()
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
	s.running.Wait()
	if !s.told.Load() {
		return errUntold
	}
	return nil
}

// Fail ends a session that can go on nowhere: its streams fail with err. The
// agent is not told. Close releases it.
func (s *Session) Fail(err error) { s.end(err, nil, wire.CodeCancelled) }

var errUntold = errors.New("the server could not be told that the session has ended")

// First returns the link that the session began with, which may have ended.
func (s *Session) First() *Link { return s.first }

func logOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
