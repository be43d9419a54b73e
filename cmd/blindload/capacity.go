package main

import (
	"context"
	"fmt"
	"os"

	"github.com/blindrelay/blindrelay/loadtest"
	"github.com/blindrelay/blindrelay/loadtest/slo"
)

type capacityCmd struct {
	relayFlags
	watchFlags
	outputFlags
	SLO     string `name:"slo" default:"stall_ratio<0.1%,start_p95<2s" placeholder:"LIST" help:"Objectives that must hold. Default ${default}."`
	First   int    `default:"8" help:"Viewers of the first trial. Default ${default}."`
	Most    int    `default:"2000" help:"Viewers that are never exceeded. Default ${default}."`
	Confirm int    `default:"2" help:"Further runs in which the answer must hold. Default ${default}."`
}

func (c *capacityCmd) Run(ctx context.Context) error {
	if _, err := slo.Parse(c.SLO); err != nil {
		return usageError{err}
	}
	ticket, err := c.tickets()
	if err != nil {
		return err
	}
	at, look, end, err := c.open()
	if err != nil {
		return err
	}
	defer end()
	found, err := loadtest.Search(ctx, c.scenario(0, c.SLO), loadtest.Target{Relay: &at, Ticket: ticket, Probe: look, Log: c.log()}, loadtest.SearchConfig{
		First: c.First, Most: c.Most, Confirm: c.Confirm,
		Tell: func(t loadtest.Trial) { fmt.Fprintf(os.Stderr, "%4d viewers: %s\n", t.Viewers, t.Why) },
	})
	if err != nil {
		return err
	}
	if found.Best == nil {
		fmt.Printf("capacity  0 viewers: %s\n", found.Limit)
		return errNotHeld
	}
	fmt.Printf("capacity  %d viewers, in %d trials; more did not hold: %s\n\n", found.Viewers, len(found.Trials), found.Limit)
	return c.write(found.Best)
}
