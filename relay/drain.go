package relay

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	drainText = "the relay is being emptied, to be replaced or for good: go to another one"
	// longestSpread bounds how long after the start of a drain an endpoint is
	// asked to move. What is left of the time is for moving.
	longestSpread = 10 * time.Second
)

// Drain asks every endpoint to go elsewhere, at times that are spread over half
// of within and over 10 s at most. Until it returns, Serve should go on: new
// sessions are closed with wire.CodeDraining at their HELLO, and the others,
// with new streams too, are served as before. It returns how many endpoints
// are left once none is, within is over or ctx ends. Shutdown then ends what is
// left. A relay that is being emptied stays so; a second call waits like the
// first.
func (r *Relay) Drain(ctx context.Context, within time.Duration) (left int) {
	var telling sync.WaitGroup
	defer telling.Wait()
	r.mu.Lock()
	if r.spread == 0 {
		r.spread = max(min(within/2, longestSpread), time.Millisecond)
		if r.welcomed == 0 {
			close(r.emptied)
		}
		for s := range r.sessions {
			telling.Go(s.askToLeave)
		}
	}
	r.mu.Unlock()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-r.emptied:
	case <-timer.C:
	case <-ctx.Done():
	}
	return r.Endpoints()
}

// Endpoints returns how many endpoints have a session with the relay now.
func (r *Relay) Endpoints() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.welcomed
}

// welcome counts a session in whose HELLO was read, unless the relay is being
// emptied.
func (r *Relay) welcome(s *session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spread > 0 {
		return false
	}
	s.welcomed = true
	r.welcomed++
	return true
}

// drainSpread is over which time endpoints are asked to leave; 0 while the
// relay is not being emptied.
func (r *Relay) drainSpread() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spread
}

// askToLeave says when the endpoint is to move, if the relay is being emptied
// and the endpoint has been greeted and not been asked before.
func (s *session) askToLeave() {
	if spread := s.relay.drainSpread(); spread > 0 {
		s.sayGoodbye(wire.Goodbye{
			Code:       wire.CodeDraining,
			RetryAfter: uint32(1 + rand.Int64N(spread.Milliseconds())),
			Text:       drainText,
		})
	}
}
