package relay

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// agent is a registered agent.
type agent struct {
	session *session
	route   wire.Route
	tokens  atomic.Pointer[[]wire.TokenHash] // replaced as a whole by the session's goroutine
}

// allows compares hashes: its time tells nothing about the tokens.
func (a *agent) allows(t wire.Token) bool {
	return slices.Contains(*a.tokens.Load(), t.Hash())
}

// registry knows which agent serves a route now.
type registry struct {
	mu     sync.RWMutex
	agents map[wire.Route]*agent
}

func (r *registry) find(route wire.Route) *agent {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.agents[route]
}

// put makes a the agent of its route and returns the one that it replaces.
func (r *registry) put(a *agent) (old *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old = r.agents[a.route]
	r.agents[a.route] = a
	return old
}

// remove takes a away unless a newer agent has replaced it.
func (r *registry) remove(a *agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agents[a.route] == a {
		delete(r.agents, a.route)
	}
}

func (r *registry) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.agents)
}
