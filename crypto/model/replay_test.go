package model

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

var (
	realPaths = flag.Int("paths", defaultPaths, "how many paths to take with the real packages; 0: every step from every state of the model")
	realDepth = flag.Int("realdepth", 9, "how many steps such a path has at most")
	realSeed  = flag.Uint64("realseed", 0, "which paths are taken; 0: random ones")
)

// walk takes a path with the real packages and holds them against the model
// after each step. It returns the first difference, or "".
func (m template) walk(t *testing.T, p []step, broken mistake) (differs string) {
	dir, err := os.MkdirTemp("", "model")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	synctest.Test(t, func(t *testing.T) {
		r := m.begin(t, dir, broken)
		defer r.stop()
		s := paired()
		for i, st := range p {
			next, ok := sound.take(s, st)
			if !ok {
				t.Fatalf("%v is no path", p)
			}
			r.take(st, s)
			s = next
			if r.failures >= maxFailures {
				return // the agent refuses all pairing for a minute
			}
			if differs = r.differs(s); differs != "" {
				differs += " after " + words(p[:i+1])
				return
			}
		}
	})
	return differs
}

// situation is what matters most for what a step does. Many steps of the model
// are taken in one like each other.
type situation struct {
	action             action
	device             device
	on, ending, invite bool
}

// paths returns steps to take: every last step with the shortest way to it, or
// as many as are wanted, half of them of situations chosen at random and half
// random walks.
func paths(t *testing.T) (all [][]step) {
	g, broken := sound.explore(*realDepth - 1)
	if broken != nil {
		t.Fatal(broken)
	}
	type edge struct {
		from state
		by   step
	}
	edges := make(map[situation][]edge)
	var every []situation
	for _, s := range g.order {
		for _, st := range steps() {
			if _, ok := sound.take(s, st); !ok {
				continue
			}
			if *realPaths == 0 {
				all = append(all, append(g.path(s), st))
				continue
			}
			at := situation{st.action, s.devices[st.d], s.on, s.ending, s.invite}
			if edges[at] == nil {
				every = append(every, at)
			}
			edges[at] = append(edges[at], edge{s, st})
		}
	}
	t.Logf("the model takes %d steps from %d states at most %d steps away, in %d situations", g.taken, len(g.order), *realDepth-1, len(every))
	if *realPaths == 0 {
		return all
	}
	seed := *realSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test ./crypto/model -run TestReal -realseed %d -paths %d -realdepth %d", seed, *realPaths, *realDepth)
	rng := rand.New(rand.NewPCG(seed, 1))
	all = lessons()
	for len(all) < *realPaths/2 {
		of := edges[every[rng.IntN(len(every))]]
		e := of[rng.IntN(len(of))]
		all = append(all, append(g.path(e.from), e.by))
	}
	for len(all) < *realPaths {
		all = append(all, randomWalk(rng))
	}
	return all
}

// randomWalk takes twice as many steps, more often those that lead on.
func randomWalk(rng *rand.Rand) (p []step) {
	s := paired()
	every := steps()
	for _, st := range every {
		switch st.action {
		case connect, join, open, lookup, finish, say:
			every = append(every, st, st)
		}
	}
	for len(p) < 2**realDepth {
		st := every[rng.IntN(len(every))]
		if next, ok := sound.take(s, st); ok && (next != s || rng.IntN(4) == 0) {
			p, s = append(p, st), next
		}
	}
	return p
}

// lessons are the paths on which the model's mistakes show, and some that
// resume a stream twice and replay it before and after its end.
func lessons() (all [][]step) {
	for w := sound + 1; w < weaknesses; w++ {
		if _, broken := w.explore(*modelDepth); broken != nil {
			all = append(all, possible(broken.path))
		}
	}
	up := []step{{connect, 0}, {lookup, 0}, {finish, 0}, {open, 0}, {lookup, 0}, {finish, 0}, {say, 0}}
	again := []step{{join, 0}, {lookup, 0}, {finish, 0}}
	end := []step{{replayStream, 0}, {replayStream, 0}, {open, 0}, {lookup, 0}, {finish, 0}, {say, 0}, {revokeFile, 0}, {replayStream, 0}, {revokeSessions, 0}}
	for _, lost := range []action{drop, killRelay} {
		all = append(all, slices.Concat(up, []step{{lost, 0}, {replayLink, 0}}, again, []step{{lost, 0}, {say, 0}}, again, end))
	}
	return append(all, slices.Concat(up, end), slices.Concat(up, []step{{killAgent, 0}, {join, 0}}, up))
}

// possible leaves out the steps of a path that only a mistake makes possible.
func possible(p []step) (all []step) {
	s := paired()
	for _, st := range p {
		if next, ok := sound.take(s, st); ok {
			all, s = append(all, st), next
		}
	}
	return all
}

// TestReal takes paths of the model with a real Home, Server and Sessions.
func TestReal(t *testing.T) {
	m := newTemplate(t)
	all := paths(t)
	var mu sync.Mutex
	failed, taken := 0, 0
	for i := range 2 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for j := i; j < len(all); j += 2 {
				differs := m.walk(t, all[j], none)
				mu.Lock()
				taken += len(all[j])
				stop := failed > 5
				if differs != "" {
					failed++
					t.Errorf("%s", differs)
				}
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	t.Cleanup(func() { t.Logf("%d paths, %d steps taken", len(all), taken) })
}

// TestRealControls: an agent that is put together wrongly is found.
func TestRealControls(t *testing.T) {
	m := newTemplate(t)
	up := []step{{connect, 0}, {lookup, 0}, {finish, 0}}
	for name, c := range map[string]struct {
		broken mistake
		path   []step
	}{
		"sessions of a revoked device go on": {noRevoke, append(up, step{revokeFile, 0}, step{revokeSessions, 0})},
		"sessions go on after off":           {noSessions, append(up, step{offFile, 0}, step{offSessions, 0})},
		"anybody is admitted":                {admitAll, []step{{revokeFile, 0}, {revokeSessions, 0}, {connect, 0}, {lookup, 0}, {finish, 0}}},
	} {
		if differs := m.walk(t, c.path, none); differs != "" {
			t.Errorf("control: %s", differs)
		}
		differs := m.walk(t, c.path, c.broken)
		if differs == "" {
			t.Errorf("%s, and nothing notices", name)
		}
		t.Logf("%s: %s", name, differs)
	}
}
