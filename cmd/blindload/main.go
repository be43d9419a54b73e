// Command blindload says how many people can watch films through a relay
// before one of them has to wait.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Run      runCmd      `cmd:"" help:"Let viewers watch, and report what they saw."`
	Capacity capacityCmd `cmd:"" help:"Find the largest number of viewers that nobody has to wait with."`
	Idle     idleCmd     `cmd:"" help:"Register agents that do nothing, and say what they cost."`
	Storm    stormCmd    `cmd:"" help:"Let all agents come at once, and say how long that takes."`
	Churn    churnCmd    `cmd:"" help:"Let agents come and go, and say what is left at the relay."`
	Compare  compareCmd  `cmd:"" help:"Compare reports side by side, and say what is noise."`
	Merge    mergeCmd    `cmd:"" help:"Add up the reports of one run on several machines."`
	Relay    relayCmd    `cmd:"" hidden:"" help:"The relay of --self."`
}

// Exit codes.
const (
	exitHeld       = 0
	exitNotHeld    = 1 // or the run failed
	exitUsage      = 2
	exitBottleneck = 3 // the generator was the limit: the run proves nothing
)

// errNotHeld and errBottleneck end runs that have already been reported.
var (
	errNotHeld    = errors.New("the objective did not hold")
	errBottleneck = errors.New("the generator was the bottleneck: this run says nothing about the relay")
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func main() {
	// What blindload's own sockets get does not matter enough to print for
	// each of them.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser, err := kong.New(&cli{},
		kong.Name("blindload"),
		kong.Description("Load test for blindrelay that speaks of films. Every flag has an environment variable, shown behind it. Exit codes: 0 the objective held, 1 it did not or the run failed, 2 usage, 3 blindload itself was the bottleneck."),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.DefaultEnvars("BLINDLOAD"),
		kong.UsageOnError(),
	)
	if err != nil {
		panic(err) // the declaration above is wrong
	}
	k, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "blindload:", err)
		fmt.Fprintln(os.Stderr, "Run 'blindload --help' for what it can do.")
		os.Exit(exitUsage)
	}
	err = k.Run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "blindload:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitHeld
	case errors.Is(err, errBottleneck):
		return exitBottleneck
	case errors.As(err, new(usageError)):
		return exitUsage
	}
	return exitNotHeld
}
