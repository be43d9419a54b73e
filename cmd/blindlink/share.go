package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

type shareCmd struct {
	homeState
	Relay  relays `required:"" placeholder:"HOST:PORT[/TCPPORT][#PIN]" help:"Relay to be reachable through, as 'blindrelay serve' prints it; may be given up to 3 times. HOST may be a name that stands for many relays: its SRV records _blindrelay._udp.HOST, else all its addresses; two of them are used at a time. Without #PIN their certificate must be publicly trusted for HOST."`
	To     target `required:"" placeholder:"URL" help:"The media server: http://HOST:PORT, https://HOST, or tcp://HOST:PORT for anything else."`
	Ticket string `placeholder:"FILE" help:"File with the ticket by which the relays' operator admits this server, closed to other users. It is read again when it changes."`
}

// Run makes the media server reachable until it is told to stop.
func (c *shareCmd) Run(a *app) error {
	dir, err := c.dir()
	if err != nil {
		return err
	}
	ticket := ""
	if c.Ticket != "" {
		if ticket, err = readTicket(c.Ticket); err != nil {
			return err
		}
	}
	home, err := pair.OpenHome(dir)
	if errors.Is(err, pair.ErrInUse) {
		return fmt.Errorf("`blindlink share` is already running with the state in %s: stop that one, or give this one another --state DIR", dir)
	}
	if err != nil {
		return err
	}
	defer home.Close()
	control, err := listenControl(dir, controlName)
	if err != nil {
		return err
	}
	defer control.Close()
	asks := new(approvals)
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{
		Home: home, Relays: c.Relay, Ticket: ticket, Approve: asks.approve, Log: a.log,
	})
	if err != nil {
		return err
	}
	defer agent.Close()
	origin, err := c.origin(a, agent)
	if err != nil {
		return err
	}
	a.log.Info("connecting", "relays", c.relayNames())
	o := &owner{home, agent, asks, c.To.url}
	return together(a,
		origin,
		func(ctx context.Context) error { return serveControl(ctx, control, a.log, o.serve) },
		func(ctx context.Context) error { return c.announce(ctx, a, o) },
		func(ctx context.Context) error {
			if c.Ticket == "" {
				<-ctx.Done()
				return nil
			}
			tick := time.NewTicker(ticketCheck)
			defer tick.Stop()
			followTicket(ctx, c.Ticket, ticket, tick.C, agent.Renew, a.log)
			return nil
		},
	)
}

// origin returns what serves the devices.
func (c *shareCmd) origin(a *app, agent *endpoint.Agent) (func(context.Context) error, error) {
	if c.To.url.Scheme == "tcp" {
		return func(ctx context.Context) error {
			return endpoint.ServeTCP(ctx, agent.Listen(), c.To.url.Host, a.log)
		}, nil
	}
	proxy, err := endpoint.NewHTTPOrigin(c.To.url, a.log)
	if err != nil {
		return nil, usageError{fmt.Errorf("--to: %w", err)}
	}
	return func(ctx context.Context) error { return proxy.Serve(ctx, agent.Listen()) }, nil
}

// readyPause is how long announce waits before it looks again.
const readyPause = 250 * time.Millisecond

// announce prints one line as soon as the media server is reachable, and until
// then says what is in the way, each thing once.
func (c *shareCmd) announce(ctx context.Context, a *app, o *owner) error {
	said := map[string]bool{} // by hint: there are few
	say := func(hint string, args ...any) {
		if !said[hint] {
			said[hint] = true
			a.log.Warn(hint, args...)
		}
	}
	for {
		changed := o.home.Changed()
		pause := readyPause
		if !o.home.Enabled() {
			say("remote access is off; turn it on with `blindlink on`")
			pause = time.Hour
		} else if err := o.agent.Ready(ctx); err == nil {
			if _, err := fmt.Fprintf(a.stdout, "reachable: %s as %q through %s\n", c.To.url.Redacted(), o.home.Server(), c.relayNames()); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		} else if ctx.Err() == nil && o.home.Enabled() {
			hintAt(err, o.home.Route(), say)
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *shareCmd) relayNames() string {
	names := c.Relay[0].Addr
	for _, r := range c.Relay[1:] {
		names += ", " + r.Addr
	}
	return names
}

// hintAt says what to do about an agent's error, where the agent's own log
// line does not.
func hintAt(err error, route wire.Route, say func(string, ...any)) {
	closed, _ := errors.AsType[*wire.ClosedError](err)
	switch {
	case errors.Is(err, transport.ErrWrongRelay):
		say("the pin behind # in --relay is not the relay's; compare it with the line that the operator's `blindrelay serve` prints")
	case closed != nil && closed.Code == wire.CodeNotAdmitted:
		say("the relay's operator has to admit this server's route; blindlink goes on trying",
			"route", route.String(), "operator_types", "blindrelay serve --allow "+route.String())
	case closed != nil && closed.Code == wire.CodeTicketMissing:
		say("the relay's operator has to give this server a ticket; put it into a file that only you can read and start share with --ticket FILE",
			"route", route.String())
	case closed != nil && (closed.Code == wire.CodeTicketRefused || closed.Code == wire.CodeTicketExpired):
		say("the relay's operator has to give this server a new ticket; put it into the file of --ticket, nothing has to be restarted",
			"route", route.String())
	default:
		say("not reachable yet; blindlink goes on trying")
	}
}

// together runs functions until one returns or ctx ends, then ends the others
// and returns their errors.
func together(ctx context.Context, fs ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(fs))
	var wait sync.WaitGroup
	for i, f := range fs {
		wait.Go(func() {
			defer cancel()
			errs[i] = f(ctx)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}
