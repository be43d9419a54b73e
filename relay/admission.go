package relay

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// judgeWithin bounds the time that a policy takes.
	judgeWithin = 5 * time.Second
	// judgeAtOnce is how many agents are judged at a time after a change of
	// policy.
	judgeAtOnce = 16
	// judgePause is how long an agent that was admitted is left alone at least.
	judgePause = time.Second
)

// policy has an address of its own each time that one is set.
type policy struct{ admit.Policy }

// verdict is what a policy has said about an agent.
type verdict struct {
	request admit.Request
	grant   admit.Grant
	by      *policy
}

// SetPolicy has new agents judged by p from now on, judges those that are
// registered by it, and ends the sessions of those that it does not admit.
// Nothing changes for the others. It returns when all are judged or ctx ends.
func (r *Relay) SetPolicy(ctx context.Context, p admit.Policy) {
	r.policy.Store(&policy{p})
	groups := r.registry.all()
	var wait sync.WaitGroup
	for range judgeAtOnce {
		wait.Go(func() {
			for {
				g, ok := groups()
				if !ok || ctx.Err() != nil {
					return
				}
				r.reconsider(g)
			}
		})
	}
	wait.Wait()
}

// judge asks the policy about an agent. A refusal is logged and returned.
func (r *Relay) judge(request admit.Request) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), judgeWithin)
	defer cancel()
	v := verdict{request: request, by: r.policy.Load()}
	var err error
	if v.grant, err = v.by.Admit(ctx, request); err == nil && v.over() {
		err = &admit.Refusal{Code: wire.CodeTicketExpired, Text: "the time for which the relay admits this server is over"}
	}
	if err == nil {
		return v, nil
	}
	refused, ok := errors.AsType[*admit.Refusal](err)
	if !ok {
		refused = &admit.Refusal{Code: wire.CodeAdmitFailed, Text: "the relay could not find out whether it admits this server", Err: err}
	}
	r.logRefusal(request.Route, refused)
	return verdict{}, &refusal{refused.Code, refused.Text}
}

func (r *Relay) logRefusal(route wire.Route, refused *admit.Refusal) {
	if !r.mayLog(time.Now()) {
		return
	}
	if refused.Code == wire.CodeNotAdmitted {
		r.log.Warn("agent not admitted: if it is yours, allow the route that `blindlink share` prints at home", "route", r.name(route))
		return
	}
	reason := refused.Text
	if refused.Err != nil {
		reason = refused.Err.Error()
	}
	r.log.Warn("agent not admitted", "code", refused.Code.String(), "route", r.name(route), "reason", reason)
}

// over reports whether the time of the grant has passed.
func (v verdict) over() bool {
	return !v.grant.Until.IsZero() && !v.grant.Until.After(time.Now())
}

// valid is how long the agent's ticket lasts, as REGISTERED says it. What it
// has shown no ticket for it cannot renew.
func (v verdict) valid() uint32 {
	if v.grant.Until.IsZero() || v.request.Ticket == "" {
		return 0
	}
	seconds := (time.Until(v.grant.Until) + time.Second - 1) / time.Second
	return uint32(max(1, min(seconds, 1<<32-1)))
}

// abide has an agent judged anew when its grant ends, or at once if there is a
// new policy since.
func (r *Relay) abide(g *group) {
	r.registry.mu.Lock()
	v, ends := g.verdict, g.verdict.grant.Until
	if g.ends != nil {
		g.ends.Stop()
		g.ends = nil
	}
	if !ends.IsZero() && len(g.agents) > 0 {
		g.ends = time.AfterFunc(max(time.Until(ends), judgePause), func() {
			r.background(func() { r.reconsider(g) })
		})
	}
	r.registry.mu.Unlock()
	if v.by != r.policy.Load() {
		r.background(func() { r.reconsider(g) })
	}
}

// background runs f in a goroutine that Shutdown waits for, unless that has
// begun.
func (r *Relay) background(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leaving {
		r.wait.Go(f)
	}
}

// reconsider judges an agent by what it said last. A REGISTER that comes
// meanwhile is judged by itself and rules.
func (r *Relay) reconsider(g *group) {
	before := r.registry.verdict(g)
	v, err := r.judge(before.request)
	if err == nil {
		if r.registry.confirm(g, before, v) {
			r.abide(g)
			if v.grant != before.grant {
				r.tellTerms(g)
			}
		}
		return
	}
	code, text := endCode(err)
	for _, a := range r.registry.dismissed(g, before) {
		r.background(func() { a.session.leave(context.Background(), wire.Goodbye{Code: code, Text: text}) })
	}
}

// all returns a function that hands out the groups of this moment, each once.
func (r *registry) all() func() (*group, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var mu sync.Mutex
	left := make([]*group, 0, len(r.groups))
	for _, g := range r.groups {
		left = append(left, g)
	}
	return func() (*group, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(left) == 0 {
			return nil, false
		}
		g := left[0]
		left = left[1:]
		return g, true
	}
}

func (r *registry) verdict(g *group) verdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	return g.verdict
}

// confirm replaces a verdict unless another one came meanwhile.
func (r *registry) confirm(g *group, before, v verdict) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.verdict != before {
		return false
	}
	g.verdict = v
	r.apply(g)
	return true
}

// dismissed returns the connections to end, unless another verdict came
// meanwhile.
func (r *registry) dismissed(g *group, before verdict) []*agent {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.verdict != before {
		return nil
	}
	return slices.Clone(g.agents)
}
