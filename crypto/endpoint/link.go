package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Times of reconnecting.
const (
	dialPatience  = 6 * time.Second // for one attempt to reach a relay
	firstPause    = 200 * time.Millisecond
	longestPause  = 5 * time.Second
	hopelessPause = 15 * time.Second // where somebody has to do something first
	// replacedPause keeps two agents with one key from taking each other's
	// place all the time: each change ends what the devices play.
	replacedPause = 5 * time.Minute
)

// Words for the state of a link to a relay.
const (
	stateOff        = "off"        // the owner has turned remote access off
	stateConnecting = "connecting" // between two attempts, or in one
	stateReachable  = "reachable"  // the relay has the route
)

// link is an agent's connection to one relay, remade for ever.
type link struct {
	agent *Agent
	relay wire.Relay

	updating chan struct{} // holds a value while update runs; room for one

	mu    sync.Mutex
	state string
	since time.Time
	err   error // why the latest attempt or connection ended; nil once reachable
	reg   *hop.Registration
}

func (l *link) set(state string, reg *hop.Registration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if state != l.state {
		l.since = time.Now()
	}
	l.state, l.reg, l.err = state, reg, err
	l.agent.moved.broadcast()
}

// keep holds the registration while remote access is on.
func (l *link) keep() {
	ctx, home := l.agent.ctx, l.agent.home
	retry := backoff{first: firstPause, most: longestPause}
	var said string // the latest failure that was logged
	for ctx.Err() == nil {
		changed := home.Changed()
		if !home.Enabled() {
			l.set(stateOff, nil, nil)
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		reg, err := l.register(ctx)
		if err == nil {
			retry.reset()
			said = ""
			l.agent.log.Info("reachable", "relay", l.relay.Addr, "route", home.Route().String())
			err = l.serve(ctx, reg, changed)
		}
		if ctx.Err() != nil || errors.Is(err, errOff) {
			continue
		}
		l.set(stateConnecting, nil, err)
		wait := retry.next()
		if reg != nil {
			wait += min(reg.RetryAfter(), time.Minute)
		}
		switch {
		case codeOf(err) == wire.CodeReplaced:
			wait += replacedPause
		case hopeless(err):
			wait += hopelessPause
		}
		if text := err.Error(); text != said {
			said = text
			l.agent.log.Warn("not reachable", "relay", l.relay.Addr, "error", err, "next_try", wait.Round(time.Millisecond))
		}
		pause(ctx, wait, home.Changed())
	}
}

func (l *link) register(ctx context.Context) (*hop.Registration, error) {
	l.set(stateConnecting, nil, l.lastError())
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	sess, err := l.agent.dialer.Dial(ctx, l.relay, &l.agent.cert)
	if err != nil {
		return nil, err
	}
	reg, err := hop.Register(ctx, sess, l.agent.home.Tokens())
	if err != nil {
		return nil, l.explain(err)
	}
	return reg, nil
}

// explain adds what the operator has to type where the route is not admitted.
func (l *link) explain(err error) error {
	if codeOf(err) == wire.CodeNotAdmitted {
		return fmt.Errorf("the relay does not admit this server; its operator has to start it with: --allow %s (%w)", l.agent.home.Route(), err)
	}
	return explain(err)
}

func (l *link) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// errOff ends a registration whose owner has turned remote access off.
var errOff = errors.New("the owner has turned remote access off")

// serve takes the streams that the relay brings, and keeps its list of tokens
// up to date, until the registration ends. It returns why. Changed is the
// Home's channel from before the registration.
func (l *link) serve(ctx context.Context, reg *hop.Registration, changed <-chan struct{}) error {
	code := wire.CodeNone
	accepting, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { l.accept(accepting, reg) })
	defer func() {
		stop()
		reg.Close(code, "")
		wait.Wait()
	}()

	l.set(stateReachable, reg, nil)
	for {
		select {
		case <-changed:
		case <-reg.Leaving():
			// After a goodbye what is in flight may end; new streams go to the
			// next registration.
			select {
			case <-reg.Done():
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			return l.explain(reg.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
		changed = l.agent.home.Changed()
		if !l.agent.home.Enabled() {
			code = wire.CodeOff
			return errOff
		}
		if err := l.update(ctx, reg); err != nil && reg.Err() == nil {
			return err
		}
	}
}

// update tells the relay which tokens it may let in now. One runs at a time,
// so that no older list overtakes a newer one.
func (l *link) update(ctx context.Context, reg *hop.Registration) error {
	select {
	case l.updating <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.updating }()
	if err := reg.Update(ctx, l.agent.home.Tokens()); err != nil {
		return fmt.Errorf("tell the relay which devices may come: %w", err)
	}
	return nil
}

// accept hands every stream over to a goroutine of its own, so that one which
// says nothing holds up no other. There are at most as many as the session
// allows streams.
func (l *link) accept(ctx context.Context, reg *hop.Registration) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		st, err := reg.Accept(ctx)
		if err != nil {
			return
		}
		wait.Go(func() {
			if attachment, err := hop.ReadIncoming(st); err == nil {
				l.agent.server.Handle(attachment, st)
			}
		})
	}
}
