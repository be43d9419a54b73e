// Command blindrelay is the relay: it joins devices to the agents of media
// servers and forwards what they say, sealed, without a key to read it.
//
//	blindrelay serve --allow ROUTE
//	blindrelay drain
//
// It prints one line, HOST:PORT[/TCPPORT]#PIN, when it listens; logs go to stderr. Every
// flag can be given as an environment variable BLINDRELAY_*. SIGTERM, SIGINT
// or `blindrelay drain` let it end once its endpoints have moved elsewhere,
// with 0; a second signal ends it at once. It ends with 1 when something
// failed, 2 when it was called wrong.
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

const (
	exitFailed = 1
	exitUsage  = 2
)

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run the relay until SIGTERM, SIGINT or drain."`
	Drain   drainCmd   `cmd:"" help:"Empty the running relay: its endpoints move elsewhere, then it ends. Prints how many sessions are left."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// usageError is a mistake in how the program was called.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func main() {
	var c cli
	parser, err := kong.New(&c,
		kong.Name("blindrelay"),
		kong.Description("A relay for streams between media servers at home and devices elsewhere. It forwards what it cannot read."),
		kong.DefaultEnvars("BLINDRELAY"),
	)
	if err != nil {
		panic(err) // the struct above is wrong
	}
	command, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "blindrelay: %v\nSee `blindrelay --help`.\n", err)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	command.BindTo(ctx, (*context.Context)(nil))
	if err := command.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "blindrelay: %v\n", err)
		if _, ok := errors.AsType[usageError](err); ok {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}
