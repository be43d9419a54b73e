package loadtest

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// path answers for n viewers as a path would that carries limit of them.
func path(limit func() int) func(n int) (*result.Result, error) {
	return func(n int) (*result.Result, error) {
		return &result.Result{SLO: []result.Verdict{{Objective: "stalls<1", Held: n <= limit()}}}, nil
	}
}

func TestSearchFindsTheLimit(t *testing.T) {
	for _, limit := range []int{0, 1, 7, 8, 9, 63, 64, 65, 100, 999, 1999, 2000, 5000} {
		cfg := SearchConfig{First: 8, Most: 2000, Confirm: 2}
		c, err := search(cfg, path(func() int { return limit }))
		if err != nil {
			t.Fatal(err)
		}
		want := min(limit, cfg.Most)
		if c.Viewers > want || c.Viewers < want-max(1, int(precision*float64(want+1))) {
			t.Errorf("limit %d: found %d", limit, c.Viewers)
		}
		if c.Viewers > 0 && c.Best == nil {
			t.Errorf("limit %d: no result of the best run", limit)
		}
		if len(c.Trials) > 25 {
			t.Errorf("limit %d: %d trials", limit, len(c.Trials))
		}
	}
}

// TestSearchConfirms has a limit that wavers: what is found must have held in
// both confirmations.
func TestSearchConfirms(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 1))
	c, err := search(SearchConfig{First: 8, Most: 2000, Confirm: 2}, path(func() int { return 80 + chance.IntN(40) }))
	if err != nil {
		t.Fatal(err)
	}
	n := len(c.Trials)
	for _, trial := range c.Trials[n-2:] {
		if trial.Viewers != c.Viewers || !trial.Held {
			t.Errorf("the answer is %d, the last trials are %v", c.Viewers, c.Trials[n-2:])
		}
	}
	if c.Viewers < 60 || c.Viewers > 120 {
		t.Errorf("found %d, the limit is between 80 and 120", c.Viewers)
	}
}

func TestSearchStopsAtErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := search(SearchConfig{First: 8, Most: 100, Confirm: 1}, func(int) (*result.Result, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
}

func TestVerdict(t *testing.T) {
	good := []result.Verdict{{Objective: "stalls<1", Held: true}}
	for name, test := range map[string]struct {
		res  result.Result
		held bool
	}{
		"held":          {result.Result{SLO: good}, true},
		"no objective":  {result.Result{}, false},
		"not held":      {result.Result{SLO: []result.Verdict{{Objective: "stalls<1"}}}, false},
		"bottleneck":    {result.Result{SLO: good, Bottleneck: "late"}, false},
		"corrupt bytes": {result.Result{SLO: good, Viewers: result.Viewers{Corrupt: 1}}, false},
	} {
		if held, why := verdict(&test.res); held != test.held {
			t.Errorf("%s: %v, %s", name, held, why)
		}
	}
}
