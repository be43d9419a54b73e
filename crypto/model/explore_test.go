package model

import (
	"fmt"
	"strings"
	"testing"
)

// graph is what can be reached from paired.
type graph struct {
	order  []state // the nearest first
	parent map[state]arrival
	taken  int // steps, from all states
	depth  int // of the farthest state
}

// arrival is how a state was reached first.
type arrival struct {
	from  state
	by    step
	depth int
}

// path returns the steps to a state.
func (g *graph) path(s state) (p []step) {
	for s != paired() {
		a := g.parent[s]
		p = append([]step{a.by}, p...)
		s = a.from
	}
	return p
}

// violation is a path that breaks an invariant at its last step.
type violation struct {
	invariant string
	path      []step
}

func (v *violation) String() string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q is broken by %s", v.invariant, words(v.path))
}

func words(p []step) string {
	var all []string
	for _, st := range p {
		all = append(all, st.String())
	}
	return strings.Join(all, ", ")
}

// explore takes every step from every state that can be reached in fewer than
// depth steps, the nearest first, and stops at the first broken invariant.
func (w weakness) explore(depth int) (*graph, *violation) {
	g := &graph{order: []state{paired()}, parent: map[state]arrival{paired(): {}}}
	all := steps()
	for i := 0; i < len(g.order); i++ {
		s := g.order[i]
		at := g.parent[s].depth
		if g.depth = at; at == depth {
			continue
		}
		for _, st := range all {
			next, ok := w.take(s, st)
			if !ok {
				continue
			}
			g.taken++
			if broken := violated(s, st, next); broken != "" {
				return g, &violation{broken, append(g.path(s), st)}
			}
			if _, known := g.parent[next]; !known {
				g.parent[next] = arrival{s, st, at + 1}
				g.order = append(g.order, next)
			}
		}
	}
	return g, nil
}

// TestModel explores all interleavings.
func TestModel(t *testing.T) {
	g, broken := sound.explore(*modelDepth)
	if broken != nil {
		t.Fatal(broken)
	}
	t.Logf("%d states at most %d steps away, %d steps taken; all invariants hold", len(g.order), g.depth, g.taken)
	seen := make(map[action]int)
	for _, s := range g.order {
		for _, st := range steps() {
			if next, ok := sound.take(s, st); ok && next != s {
				seen[st.action]++
			}
		}
	}
	for a := range actions {
		if seen[a] == 0 && a != replayLink && a != stranger { // these must change nothing
			t.Errorf("%s never does anything", a)
		}
	}
}

// TestModelControls: each mistake breaks an invariant, and each invariant is
// broken by a mistake.
func TestModelControls(t *testing.T) {
	found := make(map[string]bool)
	for w := sound + 1; w < weaknesses; w++ {
		_, broken := w.explore(*modelDepth)
		if broken == nil {
			t.Errorf("%s breaks nothing", w)
			continue
		}
		t.Logf("%s: %s", w, broken)
		found[broken.invariant] = true
	}
	if len(found) != invariants {
		t.Errorf("%d of %d invariants are broken by a mistake", len(found), invariants)
	}
}
