package relay

import (
	"container/list"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// greeting holds the sessions whose HELLO has not been read. Each takes as much
// memory as one that is of use. So when there are many, new ones push out the
// oldest: an endpoint says HELLO with the end of its handshake, so what has been
// silent for some time is a stranger's.
type greeting struct {
	mu     sync.Mutex
	oldest list.List // of silent, the oldest in front
}

type silent struct {
	*session
	since time.Time
}

const (
	// manySilent is how many sessions may be silent before any is pushed out.
	manySilent = 1024
	// silentFor is how long each may be silent in any case: endpoints that all
	// come back at once wait for a relay that is short of CPU. In that time no
	// more come than transport's limit on handshakes lets.
	silentFor = 2 * time.Second
)

// enter adds a session. The caller passes what it returns to leave.
func (g *greeting) enter(s *session) *list.Element {
	now := time.Now()
	g.mu.Lock()
	e := g.oldest.PushBack(silent{s, now})
	var pushed []*session
	for g.oldest.Len() > manySilent {
		first := g.oldest.Front()
		if now.Sub(first.Value.(silent).since) < silentFor {
			break
		}
		pushed = append(pushed, g.oldest.Remove(first).(silent).session)
	}
	g.mu.Unlock()
	for _, p := range pushed {
		p.Close(wire.CodeSilent, "nothing was said while many others came")
	}
	return e
}

// leave takes a session out again, unless it was pushed out.
func (g *greeting) leave(e *list.Element) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.oldest.Remove(e)
}
