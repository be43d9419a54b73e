package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/blindrelay/blindrelay/loadtest"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// agentFlags describe a load of agents without viewers.
type agentFlags struct {
	relayFlags
	Settle time.Duration `default:"1m" help:"How long the relay is let be before it is looked at. Default ${default}."`
	Agents int           `default:"1000" help:"How many agents. Default ${default}."`
	AtOnce int           `default:"64" help:"How many of them register at the same time. Default ${default}."`
	JSON   string        `name:"json" type:"path" placeholder:"FILE" help:"Write the figures as JSON."`
}

// measure opens the relay, lets f measure, and writes what it returns.
func (f *agentFlags) measure(run func(loadtest.AgentsConfig) (any, [][2]string, error)) error {
	ticket, err := f.tickets()
	if err != nil {
		return err
	}
	at, look, end, err := f.open()
	if err != nil {
		return err
	}
	defer end()
	figures, rows, err := run(loadtest.AgentsConfig{Relay: at, Ticket: ticket, Agents: f.Agents, AtOnce: f.AtOnce, Probe: look, Settle: f.Settle})
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if look == nil && strings.HasPrefix(r[0], "relay") {
			r[1] = "not looked at: give --ops or --pid"
		}
		fmt.Fprintf(t, "%s\t%s\n", r[0], r[1])
	}
	if err := t.Flush(); err != nil || f.JSON == "" {
		return err
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(f.JSON, append(b, '\n'), 0o644)
}

type idleCmd struct{ agentFlags }

func (c *idleCmd) Run(ctx context.Context) error {
	return c.measure(func(cfg loadtest.AgentsConfig) (any, [][2]string, error) {
		r, err := loadtest.MeasureIdle(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		return r, [][2]string{
			{"agents", fmt.Sprintf("%d registered in %s, %d could not, %d still there at the end", r.Agents, units.Duration(r.Took), r.Failed, r.Stayed)},
			{"relay", fmt.Sprintf("%s resident for each agent, %s of a core", units.Bytes(float64(r.RelayPerAgent)), units.Percent(r.RelayCPUSecond))},
			{"blindload", fmt.Sprintf("%s resident for each agent", units.Bytes(float64(r.LoadPerAgent)))},
		}, nil
	})
}

type stormCmd struct{ agentFlags }

func (c *stormCmd) Run(ctx context.Context) error {
	return c.measure(func(cfg loadtest.AgentsConfig) (any, [][2]string, error) {
		r, err := loadtest.MeasureStorm(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		return r, [][2]string{
			{"agents", fmt.Sprintf("%d came at once, all registered after %s, %d could not", r.Agents, units.Duration(r.All), r.Failed)},
			{"registered", fmt.Sprintf("p50 %s, p99 %s, %.0f each second", units.Duration(r.P50), units.Duration(r.P99), r.PerSecond)},
			{"relay", units.Duration(r.RelayCPU) + " of CPU"},
		}, nil
	})
}

type churnCmd struct {
	agentFlags
	Duration time.Duration `default:"1m" help:"How long agents come and go. Default ${default}."`
}

func (c *churnCmd) Run(ctx context.Context) error {
	return c.measure(func(cfg loadtest.AgentsConfig) (any, [][2]string, error) {
		r, err := loadtest.MeasureChurn(ctx, cfg, c.Duration)
		if err != nil {
			return nil, nil, err
		}
		return r, [][2]string{
			{"agents", fmt.Sprintf("%d came and went in %d rounds, %d could not register", r.Joined, r.Rounds, r.Failed)},
			{"relay before", fmt.Sprintf("%s resident, %d goroutines", units.Bytes(float64(r.Before.Memory)), r.Before.Goroutines)},
			{"relay after", fmt.Sprintf("%s resident, %d goroutines", units.Bytes(float64(r.After.Memory)), r.After.Goroutines)},
		}, nil
	})
}
