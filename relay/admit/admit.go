// Package admit decides whose agents a relay serves, and under which terms.
//
//	policy, err := admit.NewTickets(issuers)
//	grant, err := policy.Admit(ctx, admit.Request{Route: route, Ticket: ticket})
//
// There are four policies: [Open] admits everyone, [Allow] a list of routes,
// [Tickets] those whom the operator has given a signed ticket, and [Ask] leaves
// it to an HTTP service of the operator. Each of them refuses what it is not
// sure of. A policy keeps nothing between two calls and may be called
// concurrently.
package admit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Request is what an agent asks to be admitted with.
type Request struct {
	Route  wire.Route // proven: the agent holds its key
	Ticket string     // as the agent sent it, at most wire.MaxTicket bytes; "" is none
}

// MinRate is the lowest rate, in bit/s: less would hold a stream up for seconds
// with each block.
const MinRate = 100_000

// Grant is the terms of an admission. The relay ends an admission whose time is
// over.
type Grant struct {
	Rate     int64     // bit/s, at least MinRate; 0: the relay's default
	Sessions int       // devices at a time; 0: the relay's default
	Volume   int64     // bytes per calendar month; 0: the relay's default
	Weight   int       // share of a full line in proportion to other routes; 0: 1
	Until    time.Time // when to ask the policy again; zero: never
}

// check says what is wrong with the terms, "" if nothing is.
func (g Grant) check() string {
	switch {
	case g.Rate < 0 || g.Sessions < 0 || g.Volume < 0 || g.Weight < 0:
		return "negative"
	case g.Rate > 0 && g.Rate < MinRate:
		return fmt.Sprintf("a rate below %d bit/s", int64(MinRate))
	}
	return ""
}

// Policy decides. An error is a refusal, most often a *[Refusal].
type Policy interface {
	Admit(context.Context, Request) (Grant, error)
}

// Refusal says why an agent is not admitted.
type Refusal struct {
	Code wire.Code // for the agent, and for metrics
	Text string    // a sentence for the agent's owner
	Err  error     // what the relay's operator should know besides; nil: nothing
}

func (r *Refusal) Error() string {
	text := r.Code.String() + ": " + r.Text
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Err }

// Open admits every agent.
type Open struct{}

// Admit admits.
func (Open) Admit(context.Context, Request) (Grant, error) { return Grant{}, nil }

// Allow admits the agents of its routes. It is not changed once it is in use.
type Allow map[wire.Route]bool

// Admit looks the route up.
func (a Allow) Admit(_ context.Context, r Request) (Grant, error) {
	if a[r.Route] {
		return Grant{}, nil
	}
	refusal := notAdmitted(r.Route)
	refusal.Err = errors.New("if it is yours, add its route to --allow, or to allow in the config file")
	return Grant{}, refusal
}

func notAdmitted(r wire.Route) *Refusal {
	return &Refusal{Code: wire.CodeNotAdmitted, Text: "the operator has not admitted route " + r.String()}
}
