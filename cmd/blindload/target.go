package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/probe"
	"github.com/blindrelay/blindrelay/loadtest/units"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// relayFlags say which relay is loaded and how it is looked at.
type relayFlags struct {
	Relay     *wire.Relay `placeholder:"HOST:PORT[/TCPPORT][#PIN]" help:"Relay to load, as 'blindrelay serve' prints it. "`
	TicketKey string      `type:"existingfile" placeholder:"FILE" help:"Private key of an issuer whose tickets the relay takes, as 'blindrelay ticket new' reads it: blindload signs a ticket of a day for each of its agents. Without it the relay must run with --admit open."`
	Self      bool        `help:"Load a relay that blindload starts as a process of its own on this machine."`
	Ops       string      `placeholder:"URL" help:"The relay's metrics, like http://127.0.0.1:9464/metrics: its CPU, memory and buffers go into the report."`
	PID       int         `name:"pid" placeholder:"N" help:"The relay's process number on this machine, where its metrics cannot be reached."`

	BufferMemory units.Size `default:"1G" placeholder:"SIZE" help:"Buffer memory of the relay of --self. Default ${default}."`
	JitterBuffer units.Size `default:"1M" placeholder:"SIZE" help:"Jitter buffer of the relay of --self. Default ${default}."`
	Verbose      bool       `short:"v" help:"Log what the endpoints do."`
}

// open checks the flags and starts the relay of --self.
func (f *relayFlags) open() (relay wire.Relay, look probe.Probe, end func() error, err error) {
	end = func() error { return nil }
	if (f.Relay != nil) == f.Self {
		return relay, nil, end, usageError{errors.New("give one of --relay and --self")}
	}
	if f.Self {
		child, err := startChild(f.BufferMemory, f.JitterBuffer)
		if err != nil {
			return relay, nil, end, fmt.Errorf("relay of --self: %w", err)
		}
		return child.at, child.ops, child.end, nil
	}
	return *f.Relay, f.probe(), end, nil
}

// ticketTime is how long a ticket of --ticket-key is valid.
const ticketTime = 24 * time.Hour

// tickets returns what signs a ticket for an agent's route with --ticket-key,
// nil without it.
func (f *relayFlags) tickets() (func(wire.Route) (string, error), error) {
	if f.TicketKey == "" {
		return nil, nil
	}
	if f.Relay == nil {
		return nil, usageError{errors.New("--ticket-key goes with --relay")}
	}
	text, err := os.ReadFile(f.TicketKey)
	if err != nil {
		return nil, fmt.Errorf("--ticket-key: %w", err)
	}
	key, err := admit.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("--ticket-key %s: %w", f.TicketKey, err)
	}
	return func(route wire.Route) (string, error) {
		return admit.Ticket{Route: route, Grant: admit.Grant{Until: time.Now().Add(ticketTime)}}.Sign(key)
	}, nil
}

func (f *relayFlags) probe() probe.Probe {
	switch {
	case f.Ops != "":
		return probe.Ops(f.Ops)
	case f.PID != 0:
		return probe.Process(f.PID)
	}
	return nil
}

func (f *relayFlags) log() *slog.Logger {
	if !f.Verbose {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}
