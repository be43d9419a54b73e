package loadtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
)

// Capacity is how many viewers a path carries.
type Capacity struct {
	Viewers int            `json:"viewers"` // the most that held, also in every confirmation
	Limit   string         `json:"limit"`   // why more did not hold
	Trials  []Trial        `json:"trials"`  // in the order they were run
	Best    *result.Result `json:"best"`    // the last run with that many viewers; nil if none held
}

// Trial is one run of a search.
type Trial struct {
	Viewers int    `json:"viewers"`
	Held    bool   `json:"held"`
	Why     string `json:"why"` // in a few words
}

// SearchConfig bounds a search.
type SearchConfig struct {
	First   int         // viewers of the first trial; 0: 8
	Most    int         // viewers that are never exceeded; 0: 2,000
	Confirm int         // further runs that must hold; 0: 2
	Tell    func(Trial) // called after each trial; nil: nobody is told
}

// precision is where a search stops: between what held and what did not.
const precision = 0.05

// Search finds the largest number of viewers of the scenario's one group with
// which its objectives hold: it doubles until they do not, halves the gap until
// it is within 5 %, and then runs what it found again. A run in which the
// generator was the bottleneck did not hold: the path may carry more.
func Search(ctx context.Context, s Scenario, t Target, cfg SearchConfig) (*Capacity, error) {
	if len(s.Groups) != 1 || s.Arrivals > 0 || s.SLO == "" {
		return nil, errors.New("a capacity is searched with one kind of viewer, a closed load and an objective")
	}
	if cfg.First == 0 {
		cfg.First = 8
	}
	if cfg.Most == 0 {
		cfg.Most = 2000
	}
	if cfg.Confirm == 0 {
		cfg.Confirm = 2
	}
	return search(cfg, func(n int) (*result.Result, error) {
		trial := s
		trial.Title, trial.Groups = "", []Group{s.Groups[0]}
		trial.Groups[0].Viewers = n
		res, err := Run(ctx, trial, t)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return res, err
	})
}

// search asks run how n viewers fared.
func search(cfg SearchConfig, run func(n int) (*result.Result, error)) (*Capacity, error) {
	c := &Capacity{}
	try := func(n int) (bool, error) {
		res, err := run(n)
		if err != nil {
			return false, fmt.Errorf("with %d viewers: %w", n, err)
		}
		trial := Trial{Viewers: n}
		trial.Held, trial.Why = verdict(res)
		c.Trials = append(c.Trials, trial)
		if cfg.Tell != nil {
			cfg.Tell(trial)
		}
		if trial.Held {
			c.Best = res
		} else {
			c.Limit = trial.Why
		}
		return trial.Held, nil
	}
	held, failed := 0, cfg.Most+1
	for n := min(cfg.First, cfg.Most); ; n = min(2*n, cfg.Most) {
		ok, err := try(n)
		if err != nil {
			return nil, err
		}
		if !ok {
			failed = n
			break
		}
		if held = n; n == cfg.Most {
			break
		}
	}
	for {
		for failed-held > max(1, int(precision*float64(failed))) && held < cfg.Most {
			n := (held + failed) / 2
			ok, err := try(n)
			if err != nil {
				return nil, err
			}
			if ok {
				held = n
			} else {
				failed = n
			}
		}
		confirmed := 0
		for confirmed < cfg.Confirm && held > 0 {
			ok, err := try(held)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			confirmed++
		}
		if confirmed == cfg.Confirm || held == 0 {
			c.Viewers = held
			if held == 0 {
				c.Best = nil
			}
			return c, nil
		}
		// What was found does not hold every time: go down by a step of the
		// precision and confirm again.
		failed = held
		held = max(0, held-max(1, int(2*precision*float64(held))))
	}
}

// verdict says whether a run held, and why in a few words.
func verdict(res *result.Result) (held bool, why string) {
	if res.Viewers.Corrupt > 0 {
		return false, "wrong bytes"
	}
	if res.Bottleneck != "" {
		return false, "the generator was the bottleneck"
	}
	for _, v := range res.SLO {
		if !v.Held {
			return false, v.Objective + " is " + slo.Measured(v)
		}
	}
	return len(res.SLO) > 0, "held"
}
