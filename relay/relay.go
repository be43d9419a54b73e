package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/relay/jitter"
	"github.com/blindrelay/blindrelay/relay/share"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
)

// Patience is how long an endpoint may take to say what the protocol expects:
// HELLO on a new session, REGISTER of an agent, OPEN on a new stream.
const Patience = 10 * time.Second

// Config is what a relay is made with. It is copied by New.
type Config struct {
	// Admit says whose agents may register. Nil admits none. SetPolicy replaces
	// it. It is called on the sessions' goroutines and has 5 s.
	Admit admit.Policy
	// BufferMemory bounds what all forwarded streams hold together, in bytes:
	// jitter buffers, QUIC receive windows and what a stream costs by itself.
	// Required.
	BufferMemory int64
	// JitterBuffer bounds one direction of one stream, in bytes. 0 means 1 MiB.
	JitterBuffer int
	// Limits bound what the relay does. SetLimits replaces them.
	Limits Limits
	// Receipts sign how much of its volume a route has used. Nil gives and takes
	// none: then a restart forgets it.
	Receipts *admit.Receipts
	// Log takes what an operator should know. Nil logs nothing. PRIVACY.md lists
	// every line.
	Log *slog.Logger
	// NameRoute and NameAddress return how the log is to name a route and the
	// address of an endpoint. Nil names none.
	NameRoute   func(wire.Route) string
	NameAddress func(net.Addr) string
}

// Listener accepts sessions. *transport.Listener and
// *transport.TCPListener are such.
type Listener interface {
	Accept(context.Context) (transport.Session, error)
}

// Relay forwards streams. Its methods may be called concurrently.
type Relay struct {
	policy   atomic.Pointer[policy]
	log      *slog.Logger
	name     func(wire.Route) string // in the log
	from     func(net.Addr) string   // in the log
	budget   *jitter.Budget
	line     *share.Line
	waiting  *waiting
	greeting greeting
	metrics  *metrics

	registry registry
	wait     sync.WaitGroup // sessions and streams

	mu       sync.Mutex
	sessions map[*session]struct{}
	limit    limit
	welcomed int           // of sessions, those whose HELLO was taken
	spread   time.Duration // over which endpoints are asked to leave; 0: the relay is not being emptied
	leaving  bool          // no session is accepted any more
	logged   time.Time     // when an agent that is not admitted was last logged
	// of the sessions that have ended
	packetsOut, packetsIn uint64

	emptied chan struct{} // closed once the relay is being emptied and no endpoint is left
}

// New returns a relay that serves nothing yet.
func New(cfg Config) (*Relay, error) {
	waiting, held := newWaiting(cfg.BufferMemory)
	budget, err := jitter.NewBudget(jitter.BudgetConfig{
		Total:    cfg.BufferMemory - held,
		Max:      cfg.JitterBuffer,
		Overhead: streamOverhead(),
	})
	if err != nil {
		return nil, fmt.Errorf("buffer memory: %w", err)
	}
	limits := cfg.Limits.resolved()
	metrics := newMetrics()
	r := &Relay{
		log:      cfg.Log,
		name:     cfg.NameRoute,
		from:     cfg.NameAddress,
		budget:   budget,
		waiting:  waiting,
		line:     share.NewLine(limits.Egress, metrics.waited),
		metrics:  metrics,
		sessions: make(map[*session]struct{}),
		limit:    limit{of: make(map[netip.Prefix]int)},
		emptied:  make(chan struct{}),
	}
	if cfg.Admit == nil {
		cfg.Admit = admit.Allow{}
	}
	r.policy.Store(&policy{cfg.Admit})
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.name == nil {
		r.name = func(wire.Route) string { return unnamed }
	}
	if r.from == nil {
		r.from = func(net.Addr) string { return unnamed }
	}
	r.limit.set(limits.MaxSessions, limits.MaxSessionsPerAddress)
	r.registry = registry{
		line: r.line, metrics: metrics, limits: limits, groups: make(map[wire.Route]*group),
		volumes: volumes{receipts: cfg.Receipts, used: make(map[wire.Route]int64)},
	}
	return r, nil
}

// unnamed stands in the log for what it is not to name.
const unnamed = "-"

// streamOverhead is what a forwarded stream may hold besides its buffers, in
// bytes; see "Memory" in the package's documentation.
func streamOverhead() int64 {
	return 2*windowMemory() + 64<<10
}

// windowMemory is what one receive window may hold, in bytes.
func windowMemory() int64 {
	window := int64(transport.RelayWindows().Stream)
	return window + window/8
}

// Serve accepts sessions until ctx ends or the listener closes, and returns
// nil then. It does not wait for the sessions: Shutdown does.
func (r *Relay) Serve(ctx context.Context, ln Listener) error {
	for {
		s, err := ln.Accept(ctx)
		switch {
		case err == nil:
			r.start(s)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default:
			return err
		}
	}
}

// start runs a session in a goroutine of its own, so that nothing holds up the
// accept loop.
func (r *Relay) start(ts transport.Session) {
	s := &session{relay: r, Session: ts, attachment: rand.Uint64(), source: ts.RemoteAddr()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	r.mu.Lock()
	if r.leaving {
		r.mu.Unlock()
		ts.Close(wire.CodeShutdown, "")
		return
	}
	if no := r.limit.take(s.source); no != nil {
		r.mu.Unlock()
		s.cancel()
		ts.Close(no.code, no.text)
		r.metrics.sessionsEnded.of(no.code).Inc()
		return
	}
	r.sessions[s] = struct{}{}
	r.wait.Go(s.run)
	r.mu.Unlock()
}

// forget is called once by each session that has ended.
func (r *Relay) forget(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s)
	r.limit.give(s.source)
	if s.welcomed {
		if r.welcomed--; r.welcomed == 0 && r.spread > 0 {
			close(r.emptied) // nobody is welcomed any more
		}
	}
	out, in := s.Packets()
	r.packetsOut += out
	r.packetsIn += in
}

// mayLog reports whether another stranger may have a line of the log: one each
// second. The metrics count them all.
func (r *Relay) mayLog(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.logged) < time.Second {
		return false
	}
	r.logged = now
	return true
}

// packets counts the datagrams of all sessions, those that ended too.
func (r *Relay) packets() (out, in uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, in = r.packetsOut, r.packetsIn
	for s := range r.sessions {
		o, i := s.Packets()
		out += o
		in += i
	}
	return out, in
}

// carriedBy counts the sessions of a carrier, as their Protocol names it.
func (r *Relay) carriedBy(protocol string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.sessions {
		if s.Protocol() == protocol {
			n++
		}
	}
	return n
}

const (
	// retryWithin spreads the endpoints' return after a shutdown.
	retryWithin = time.Second
	// goodbyeFlight is how long a goodbye has to arrive: closing a session
	// drops what is under way.
	goodbyeFlight = 500 * time.Millisecond
)

// Shutdown says goodbye to every endpoint, waits a moment so that the word
// arrives, closes all sessions with wire.CodeShutdown, and returns when nothing
// runs any more or ctx ends. The listener should have been stopped before.
func (r *Relay) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.leaving = true
	var wait sync.WaitGroup
	for s := range r.sessions {
		wait.Go(func() { s.shutdown(ctx) })
	}
	r.mu.Unlock()
	done := make(chan struct{}) // closed by the goroutine below
	go func() {
		wait.Wait()
		r.wait.Wait()
		r.line.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("shutdown: %w", ctx.Err())
	}
}

func (s *session) shutdown(ctx context.Context) {
	s.leave(ctx, wire.Goodbye{
		Code:       wire.CodeShutdown,
		RetryAfter: uint32(1 + rand.Int64N(retryWithin.Milliseconds())),
		Text:       "the relay is going down",
	})
}

// leave says goodbye and ends the session when the word has arrived, or ctx
// ends.
func (s *session) leave(ctx context.Context, g wire.Goodbye) {
	if s.sayGoodbye(g) {
		select {
		case <-time.After(goodbyeFlight):
		case <-s.Done():
		case <-ctx.Done():
		}
	}
	s.Close(g.Code, g.Text)
}

// Collectors returns the relay's metrics for a Prometheus registry.
func (r *Relay) Collectors() []prometheus.Collector { return r.metrics.collectors(r) }

// HandshakeFailed counts a connection attempt that came to nothing.
func (r *Relay) HandshakeFailed(code wire.Code) { r.metrics.handshakes.of(code).Inc() }

// Forwarded returns how many bytes of streams have passed so far, in both
// directions. Each direction of a stream is counted every 256 KiB.
func (r *Relay) Forwarded() int64 { return r.metrics.bytesUp.Load() + r.metrics.bytesDown.Load() }
