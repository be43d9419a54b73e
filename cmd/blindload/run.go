package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest"
	"github.com/blindrelay/blindrelay/loadtest/live"
	"github.com/blindrelay/blindrelay/loadtest/report"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
	"github.com/blindrelay/blindrelay/loadtest/units"
	"github.com/blindrelay/blindrelay/loadtest/viewer"
)

// watchFlags describe a load of one kind of viewer.
type watchFlags struct {
	Kind           viewer.Kind   `default:"vod" enum:"vod,live,progressive,seek,bulk,music" help:"What a viewer does: ${enum}. Default ${default}."`
	Bitrate        units.Bitrate `default:"8M" help:"Bitrate of what they watch, in bit/s with k, M or G. Default ${default}."`
	Adaptive       bool          `help:"Choose the bitrate by throughput, as players do, from 1 to 16 Mbit/s."`
	Duration       time.Duration `default:"30s" help:"How long they watch after the ramp. Default ${default}."`
	Ramp           time.Duration `default:"5s" help:"Time over which they arrive. Default ${default}."`
	Link           string        `placeholder:"PROFILE" help:"Access line of each device: fibre, cable, dsl, lte, lte-train, 3g, wifi-far, satellite, hotel."`
	HomeLink       string        `placeholder:"PROFILE" help:"Access line of each home."`
	ViewersPerHome int           `default:"4" help:"How many viewers share a home. Default ${default}."`
	Seed           uint64        `default:"1" help:"Of everything that chance decides. Default ${default}."`
}

func (f watchFlags) scenario(viewers int, slo string) loadtest.Scenario {
	return loadtest.Scenario{
		Duration: f.Duration, Ramp: f.Ramp, Link: f.Link, HomeLink: f.HomeLink,
		ViewersPerHome: f.ViewersPerHome, Seed: f.Seed, SLO: slo,
		Groups: []loadtest.Group{{Kind: f.Kind, Viewers: viewers, Bitrate: f.Bitrate, Adaptive: f.Adaptive}},
	}
}

// outputFlags say where a report goes besides standard output.
type outputFlags struct {
	Report string `type:"path" placeholder:"FILE" help:"Write the report as one HTML file with plots."`
	JSON   string `name:"json" type:"path" placeholder:"FILE" help:"Write everything that was measured as JSON, for compare and merge."`
	CSV    string `name:"csv" type:"path" placeholder:"FILE" help:"Write one row with the figures."`
}

func (f outputFlags) write(res *result.Result) error {
	if err := report.Text(os.Stdout, res); err != nil {
		return err
	}
	var errs []error
	if f.Report != "" {
		errs = append(errs, writeFile(f.Report, func(w io.Writer) error { return report.HTML(w, res) }))
	}
	if f.CSV != "" {
		errs = append(errs, writeFile(f.CSV, func(w io.Writer) error { return report.CSV(w, res) }))
	}
	if f.JSON != "" {
		errs = append(errs, res.WriteFile(f.JSON))
	}
	return errors.Join(errs...)
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

type runCmd struct {
	relayFlags
	watchFlags
	outputFlags
	Invite   string  `placeholder:"TEXT" help:"Load the server that this invite pairs with, instead of homes that blindload makes: all viewers are then one device. Needs --path."`
	URL      string  `name:"url" placeholder:"URL" help:"Load any path that ends in HTTP instead of a relay, like http://127.0.0.1:8096: direct, or another tunnel."`
	Path     string  `placeholder:"PATH" help:"What to ask a server of your own for, a playlist or a file; its bytes are then not verified. Without it the path must end at blindload's own origin."`
	Viewers  int     `default:"10" help:"How many watch at the same time. Default ${default}."`
	Arrivals float64 `placeholder:"N" help:"Let N viewers arrive each second instead, by chance, whether or not the path carries them."`
	Scenario string  `type:"existingfile" placeholder:"FILE" help:"Run a scenario file (YAML), which replaces the flags of the viewers."`
	SLO      string  `name:"slo" placeholder:"LIST" help:"Objectives that decide the exit code, like 'stall_ratio<0.1%,start_p95<2s'."`
}

func (c *runCmd) Run(ctx context.Context) error {
	s := c.scenario(c.Viewers, c.SLO)
	s.Arrivals = c.Arrivals
	if c.Scenario != "" {
		var err error
		if s, err = loadtest.Load(c.Scenario); err != nil {
			return usageError{err}
		}
		if c.SLO != "" {
			s.SLO = c.SLO
		}
	}
	if s.SLO != "" {
		if _, err := slo.Parse(s.SLO); err != nil {
			return usageError{err}
		}
	}
	target, end, err := c.target()
	if err != nil {
		return err
	}
	defer end()
	res, err := loadtest.Run(ctx, s, target)
	if err != nil {
		return err
	}
	if err := c.write(res); err != nil {
		return err
	}
	return verdict(res)
}

func (c *runCmd) target() (loadtest.Target, func() error, error) {
	t := loadtest.Target{URL: c.URL, Path: c.Path, Log: c.log(), Live: show}
	nothing := func() error { return nil }
	var err error
	if t.Ticket, err = c.tickets(); err != nil {
		return t, nothing, err
	}
	if c.URL != "" {
		if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return t, nothing, usageError{fmt.Errorf("--url %q is not an http:// address", c.URL)}
		}
		if c.Relay != nil || c.Self || c.Invite != "" {
			return t, nothing, usageError{errors.New("give one of --relay, --self, --invite and --url")}
		}
		t.Probe = c.probe()
		return t, nothing, nil
	}
	if c.Invite != "" {
		invite, err := pair.ParseInvite(c.Invite)
		if err != nil {
			return t, nothing, usageError{err}
		}
		if c.Relay != nil || c.Self || c.Path == "" {
			return t, nothing, usageError{errors.New("--invite names the relay itself, and needs a --path to ask its server for")}
		}
		t.Invite, t.Probe, t.RelayAt = &invite, c.probe(), c.Ops
		return t, nothing, nil
	}
	if c.Path != "" {
		return t, nothing, usageError{errors.New("--path goes with --url and --invite: behind a relay blindload serves its own films")}
	}
	at, look, end, err := c.open()
	t.Relay, t.Probe, t.RelayAt = &at, look, c.Ops
	return t, end, err
}

// show draws the live view on the terminal.
func show(ctx context.Context, snapshot func() loadtest.Snapshot) {
	live.Show(ctx, os.Stderr, os.Getenv("TERM") == "dumb", snapshot) // who cannot see it misses nothing of the report
}

// verdict is the error of a run that did not hold. Wrong bytes never hold.
// Without an objective a run holds if everybody saw a picture.
func verdict(res *result.Result) error {
	switch {
	case res.Viewers.Corrupt > 0:
		return errors.New("the viewers received wrong bytes")
	case res.Bottleneck != "":
		return errBottleneck
	case len(res.SLO) > 0 && !slo.Held(res.SLO), res.NeverStarted() > 0 && len(res.SLO) == 0:
		return errNotHeld
	}
	return nil
}
