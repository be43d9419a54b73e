package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/blindrelay/blindrelay/crypto/hostile"
)

type selftestCmd struct {
	Hostile bool   `help:"Also run the attacks of a hostile relay, several hundred in some ten seconds, and print what came of them."`
	Seed    uint64 `help:"What the attacks leave to chance: a number that an earlier run printed. Default: another one each time."`
}

// atOnce is how many attacks run at a time.
const atOnce = 16

// Run runs conversations, and attacks on them, in memory.
func (c selftestCmd) Run(a *app) error {
	seed := c.Seed
	if seed == 0 {
		seed = rand.Uint64N(1e9) + 1
	}
	tests := hostile.Honest()
	if c.Hostile {
		fmt.Fprintln(a.stderr, "running the attacks, which takes some ten seconds")
		tests = append(tests, hostile.Attacks()...)
	}
	results := hostile.Run(a, tests, seed, atOnce)
	if a.Err() != nil {
		return errors.New("stopped before the self-test was over")
	}
	survivors, err := hostile.Print(a.stdout, results)
	if err != nil {
		return err
	}
	const held = "every byte that was read was the one that was written, every cut was noticed, and nobody else was let in"
	switch {
	case survivors > 0:
		fmt.Fprintf(a.stdout, "\nFAILED: %d of %d conversations came to what they must not (seed %d). Do not use this build, and report it.\n", survivors, len(results), seed)
		return errSaid
	case c.Hostile:
		fmt.Fprintf(a.stdout, "\nIt holds: in %d conversations, all but %d with a relay that attacks, %s (seed %d).\nRefused: you would have been told. Whole: all arrived, because the endpoints made the damage good or none was done.\n", len(results), len(hostile.Honest()), held, seed)
	default:
		fmt.Fprintf(a.stdout, "\nIt works: %d conversations through a relay in memory, with true handshakes and sealed streams, came whole.\nTry what a hostile relay can do with: blindlink selftest --hostile\n", len(results))
	}
	return nil
}
