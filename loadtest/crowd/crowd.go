// Package crowd holds many agents at a relay that do nothing: what idle servers
// cost, and what happens when all of them come at once.
//
//	c := crowd.New(relay, nil, recorder)
//	failed, err := c.Join(ctx, 10_000, 64)     // 64 at a time
//	err = c.Close()
//
// An agent here is a session with a registered route and nothing behind it: no
// end-to-end server, no files. It does not reconnect by itself.
package crowd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// perSocket is how many agents share a UDP socket of this process.
const perSocket = 250

// attemptTime bounds one agent's way to a registration.
const attemptTime = 30 * time.Second

// Crowd is a number of agents. Its methods may not be called concurrently.
type Crowd struct {
	relay  wire.Relay
	ticket func(wire.Route) (string, error) // nil: none
	rec    *result.Recorder

	certs   []tls.Certificate // of all agents that ever joined, made once
	tickets []string          // one for each of certs, "" without
	dialers []*transport.Dialer

	mu      sync.Mutex
	members []*hop.Registration
}

// New returns an empty crowd at a relay, which is shown what ticket returns for
// an agent's route; nil is for a relay that admits every agent. It records
// connection times and errors with rec.
func New(relay wire.Relay, ticket func(wire.Route) (string, error), rec *result.Recorder) *Crowd {
	return &Crowd{relay: relay, ticket: ticket, rec: rec}
}

// Record makes the crowd record with rec from now on.
func (c *Crowd) Record(rec *result.Recorder) { c.rec = rec }

// Prepare makes the keys, tickets and sockets of n agents, so that Join measures the
// relay and not the making of keys.
func (c *Crowd) Prepare(n int) error {
	for len(c.certs) < n {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		id, err := e2e.NewIdentity(key)
		if err != nil {
			return err
		}
		cert, ticket := id.Certificate(), ""
		if c.ticket != nil {
			if ticket, err = c.ticket(wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)); err != nil {
				return err
			}
		}
		c.certs, c.tickets = append(c.certs, cert), append(c.tickets, ticket)
	}
	for len(c.dialers)*perSocket < n {
		d, err := transport.NewDialer(nil)
		if err != nil {
			return err
		}
		c.dialers = append(c.dialers, d)
	}
	return nil
}

// Join registers agents 0 to n-1, atOnce at a time, and returns how many could
// not and the first reason.
func (c *Crowd) Join(ctx context.Context, n, atOnce int) (failed int, err error) {
	if err := c.Prepare(n); err != nil {
		return n, err
	}
	var wait sync.WaitGroup
	room := make(chan struct{}, atOnce) // a value for each attempt that runs
	for i := range n {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-room }()
			begin := time.Now()
			r, one := c.register(ctx, i)
			c.mu.Lock()
			defer c.mu.Unlock()
			if one != nil {
				failed++
				if err == nil {
					err = fmt.Errorf("agent %d: %w", i, one)
				}
				c.rec.Error("register")
				return
			}
			c.rec.Hist(result.HistConnect).Record(time.Since(begin))
			c.members = append(c.members, r)
		})
	}
	wait.Wait()
	return failed, errors.Join(err, ctx.Err())
}

func (c *Crowd) register(ctx context.Context, i int) (*hop.Registration, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	s, err := c.dialers[i/perSocket].Dial(ctx, c.relay, &c.certs[i])
	if err != nil {
		return nil, err
	}
	return hop.Register(ctx, s, wire.Register{Ticket: c.tickets[i]})
}

// Size returns how many agents are registered, as far as they know.
func (c *Crowd) Size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, m := range c.members {
		select {
		case <-m.Leaving():
		default:
			n++
		}
	}
	return n
}

// Leave ends every agent's session, all at once.
func (c *Crowd) Leave() {
	c.mu.Lock()
	members := c.members
	c.members = nil
	c.mu.Unlock()
	var wait sync.WaitGroup
	for _, m := range members {
		wait.Go(func() { m.Close(wire.CodeNone, "") })
	}
	wait.Wait()
}

// Close ends everything.
func (c *Crowd) Close() error {
	c.Leave()
	var errs []error
	for _, d := range c.dialers {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}
