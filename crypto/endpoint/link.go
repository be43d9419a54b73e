package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport"
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
	// longestSilence is how long a relay may say nothing, not even that it got
	// the keep-alives, which are sent each 2 s.
	longestSilence = 4 * time.Second
	silenceCheck   = 500 * time.Millisecond
	// ticketNotice is how long before its end the owner is told of a ticket.
	ticketNotice = time.Hour
)

// Words for the state of the way to a relay.
const (
	stateOff        = "off"        // the owner has turned remote access off
	stateConnecting = "connecting" // between two attempts, or in one
	stateReachable  = "reachable"  // the relay has the route
	stateLeaving    = "leaving"    // the relay is being emptied; what streams goes on
	stateStandby    = "standby"    // the relay is known and not needed now
)

// link is one registered connection of an agent to a relay.
type link struct {
	roster *roster
	place  *place
	relay  wire.Relay
	sess   transport.Session
	reg    *hop.Registration
	since  time.Time
	ending chan error // why this side ends it; end sends without blocking, and the first reason counts

	// Guarded by the roster's mu.
	streams int       // open
	move    time.Time // when to be elsewhere, as the relay is being emptied; zero if it is not
	retired time.Time // when another link took its place; zero before
}

// register makes a link.
func (r *roster) register(p *place, relay wire.Relay, why purpose) (*link, error) {
	ctx, cancel := context.WithTimeout(r.agent.ctx, attemptPatience)
	defer cancel()
	dial := r.dialer.Dial
	if why == quicAgain {
		dial = r.dialer.DialQUIC
	}
	sess, err := dial(ctx, relay, &r.agent.cert)
	if err != nil {
		return nil, err
	}
	done, err := p.beginUpdate(ctx)
	if err != nil {
		sess.Close(wire.CodeNone, "")
		return nil, err
	}
	defer done()
	reg, err := hop.Register(ctx, sess, wire.Register{
		Instance: r.instance, Tokens: r.agent.home.Tokens(), Ticket: *r.agent.ticket.Load(), Receipt: r.agent.receipts.of(relay),
	})
	if err != nil {
		return nil, r.explain(err)
	}
	return &link{roster: r, place: p, relay: relay, sess: sess, reg: reg, since: time.Now(), ending: make(chan error, 1)}, nil
}

// explain adds what the operator has to type where the route is not admitted.
func (r *roster) explain(err error) error {
	switch codeOf(err) {
	case wire.CodeNotAdmitted:
		return fmt.Errorf("the relay does not admit this server; its operator has to start it with: --allow %s (%w)", r.agent.home.Route(), err)
	case wire.CodeTicketMissing:
		return fmt.Errorf("the relay admits this server only with a ticket: ask its operator for one for the route %s, put it into a file that only you can read, and start share with --ticket FILE (%w)", r.agent.home.Route(), err)
	}
	return explain(err)
}

var (
	// errOff ends a registration whose owner has turned remote access off.
	errOff    = errors.New("the owner has turned remote access off")
	errSilent = errors.New("the relay has gone silent: its host, or the network on the way, may be down")
)

func (l *link) onTCP() bool { return l.retired.IsZero() && l.sess.Protocol() == protocolTCP }

// end has serve leave the relay.
func (l *link) end(why error) {
	select {
	case l.ending <- why:
	default:
	}
}

// serve takes the streams that the relay brings, and keeps its list of tokens
// and the ticket up to date, until the registration ends. It returns why.
// Changed is the Home's channel from before the registration, renewed the
// agent's.
func (l *link) serve(ctx context.Context, changed, renewed <-chan struct{}) error {
	code := wire.CodeNone
	serving, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { l.accept(serving) })
	wait.Go(func() { l.follow(serving, changed, renewed) })
	defer func() {
		stop()
		l.reg.Close(code, "")
		l.hear()
		wait.Wait()
	}()
	leaving := l.reg.Leaving()
	check := time.NewTicker(silenceCheck)
	defer check.Stop()
	for {
		select {
		case <-leaving:
			if l.reg.Draining() {
				l.moveAfter(l.reg.RetryAfter())
				leaving = nil
				continue
			}
			// After a goodbye what is in flight may end; new streams go to the
			// next registration.
			select {
			case <-l.reg.Done():
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			return l.roster.explain(l.reg.Err())
		case <-l.reg.Done():
			if l.reg.Draining() {
				return errDrained
			}
			return l.roster.explain(l.reg.Err())
		case <-l.reg.News():
			l.hear()
		case <-check.C:
			if l.sess.Silent() >= longestSilence {
				code = wire.CodeTimeout
				return errSilent
			}
			l.roster.warn(l.place, l.reg.Until())
		case err := <-l.ending:
			if errors.Is(err, errOff) {
				code = wire.CodeOff
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hear takes what the relay has said of its limits, and its receipt.
func (l *link) hear() {
	l.roster.agent.receipts.take(l.relay, l.reg.Receipt())
	l.roster.mu.Lock()
	defer l.roster.mu.Unlock()
	l.place.limits.look(l.roster.agent.log, l.place.String(), l.reg.Limits(), time.Now())
}

// moveAfter notes when the agent is to be elsewhere.
func (l *link) moveAfter(d time.Duration) {
	l.roster.mu.Lock()
	l.move = time.Now().Add(min(d, farthestMove))
	l.roster.mu.Unlock()
	l.roster.moved.broadcast()
}

// warn tells the owner, once, of a ticket that ends soon.
func (r *roster) warn(p *place, until time.Time) {
	if until.IsZero() || time.Until(until) > ticketNotice {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := until.Sub(p.warned).Abs(); d <= 2*time.Second { // relays count in seconds
		return
	}
	p.warned = until
	r.agent.log.Warn("the ticket for the relay ends soon: ask its operator for a new one and put it into the file of --ticket; nothing has to be restarted", "relay", p.String(), "at", until.UTC())
}

// follow tells the relay of every change of the Home, and of a new ticket.
func (l *link) follow(ctx context.Context, changed, renewed <-chan struct{}) {
	home := l.roster.agent.home
	for {
		select {
		case <-changed:
		case <-renewed:
		case <-ctx.Done():
			return
		}
		changed, renewed = home.Changed(), l.roster.agent.renewed.next()
		if !home.Enabled() {
			l.roster.agent.Enforce() // the devices are told before their way is cut
			l.end(errOff)
			return
		}
		if err := l.update(ctx); err != nil {
			l.end(err)
			return
		}
	}
}

// update tells the relay which tokens it may let in now, and the ticket.
func (l *link) update(ctx context.Context) error {
	done, err := l.place.beginUpdate(ctx)
	if err != nil {
		return err
	}
	defer done()
	agent := l.roster.agent
	if err := l.reg.Update(ctx, agent.home.Tokens(), *agent.ticket.Load()); err != nil {
		return l.roster.explain(fmt.Errorf("tell the relay which devices may come: %w", err))
	}
	return nil
}

// beginUpdate waits until no word about tokens is on its way to the relay: an
// older list must not overtake a newer one over another connection.
func (p *place) beginUpdate(ctx context.Context) (done func(), err error) {
	select {
	case p.updating <- struct{}{}:
		return func() { <-p.updating }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accept hands every stream over to a goroutine of its own, so that one which
// says nothing holds up no other. There are at most as many as the session
// allows streams.
func (l *link) accept(ctx context.Context) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for {
		st, err := l.reg.Accept(ctx)
		if err != nil {
			return
		}
		wait.Go(func() {
			if attachment, err := hop.ReadIncoming(st); err == nil {
				l.roster.handle(attachment, l.count(attachment, st))
			}
		})
	}
}
