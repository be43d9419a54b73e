package hostile

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
)

// Result is what came of one attack at one position.
type Result struct {
	Attack   string
	Position string
	Whole    bool   // every byte arrived all the same: the endpoints made the damage good
	Seen     string // what the person at the device is told; empty if Whole
	AtHome   string // what the program beside the media server is told; empty: nothing
	Survived string // why the attack counts as a success of the relay's; empty if it does not
}

// Run runs the attacks, parallel of them at a time and beside those that mostly
// wait, and returns what came of each, in their order. The seed decides what
// they leave to chance. Run takes some seconds. When ctx ends it begins no further attack; the results of those
// that did not run are empty.
func Run(ctx context.Context, attacks []Attack, seed uint64, parallel int) []Result {
	results := make([]Result, len(attacks))
	slots := make(chan struct{}, parallel) // one value for each attack that runs, but for those that wait
	var wg sync.WaitGroup
	try := func(i int) { results[i] = attacks[i].attack.try(rand.New(rand.NewPCG(seed, uint64(i)))) }
	for i, a := range attacks {
		if a.attack.waits() {
			wg.Go(func() { try(i) })
		}
	}
	for i, a := range attacks {
		if a.attack.waits() {
			continue
		}
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			try(i)
			<-slots
		})
	}
	wg.Wait()
	return results
}

// tries is how often an attack is begun that finds nothing to strike: how data
// falls into records and carriers is up to the scheduler.
const tries = 5

// try runs one attack and judges what came of it.
func (a attack) try(rnd *rand.Rand) (r Result) {
	for range tries {
		var struck bool
		if r, struck = a.once(rnd); struck || r.Survived != "" {
			return r
		}
	}
	r.Survived = "the attack did not take place"
	return r
}

// once begins one attack, and reports whether it took place.
func (a attack) once(rnd *rand.Rand) (r Result, struck bool) {
	w := newWorld(rnd)
	device := a.run(w)
	w.settle()
	w.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	r = Result{Attack: a.name, Position: a.position, Whole: device == nil, Survived: w.survived}
	if device != nil {
		r.Seen = endpoint.Explain(device).Error()
	}
	if w.agentErr != nil {
		r.AtHome = w.agentErr.Error()
	}
	struck = w.relay.struck.Load()
	switch {
	case r.Survived != "" || !struck:
	case !a.want.holds(outcome{device, w.agentErr, w.hopErr, w.incoming}):
		r.Survived = "it had to come to: " + a.want.what
	case blamed(device) && !accuses(r.Seen):
		r.Survived = "the person is not told that the relay or the network did it"
	}
	return r, struck
}
