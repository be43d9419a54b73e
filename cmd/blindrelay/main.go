// Command blindrelay is the relay: it joins devices to the agents of media
// servers and forwards what they say, sealed, without a key to read it.
//
//	blindrelay serve --allow ROUTE
//	blindrelay serve --config FILE
//	blindrelay check FILE
//	blindrelay ticket new --key FILE --route ROUTE
//	blindrelay drain
//
// It prints one line, HOST:PORT[/TCPPORT]#PIN, when it listens; logs go to stderr. Every
// flag can be given as an environment variable BLINDRELAY_*, and those of serve
// in a config file. SIGHUP has it read its config, certificate and keys of
// tickets again. SIGTERM, SIGINT or `blindrelay drain` let it end once its
// endpoints have moved elsewhere, with 0; a second signal ends it at once. It
// ends with 1 when something failed, 2 when it was called wrong.
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
	Check   checkCmd   `cmd:"" help:"Say what is wrong in a config file, line by line, and what to write instead."`
	Config  configCmd  `cmd:"" help:"Print a commented config file with every key."`
	Ticket  ticketCmd  `cmd:"" help:"Make and read the tickets that --admit ticket asks for. Needs no relay."`
	Drain   drainCmd   `cmd:"" help:"Empty the running relay: its endpoints move elsewhere, then it ends. Prints how many sessions are left."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// usageError is a mistake in how the program was called.
type usageError struct {
	text string
	flag string // which one it is about, without --; "" if none
}

func (e usageError) Error() string { return e.text }

const envPrefix = "BLINDRELAY"

func newParser(c *cli, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(c, append([]kong.Option{
		kong.Name("blindrelay"),
		kong.Description("A relay for streams between media servers at home and devices elsewhere. It forwards what it cannot read."),
	}, options...)...)
}

// loaded is a command line with what the environment and the config file add.
type loaded struct {
	args    []string
	cli     *cli
	command *kong.Context
	file    *configFile // nil: none
}

// load reads a command line.
func load(args []string) (*loaded, error) {
	l, err := parse(args)
	if err != nil || l.command.Command() != "serve" || l.cli.Serve.Config == "" {
		return l, err
	}
	file, err := readConfig(l.cli.Serve.Config)
	if err != nil {
		return nil, err
	}
	if l, err = parse(args, kong.Resolvers(file)); err != nil {
		return nil, err
	}
	l.file = file
	return l, nil
}

func parse(args []string, options ...kong.Option) (*loaded, error) {
	l := &loaded{args: args, cli: new(cli)}
	parser, err := newParser(l.cli, append(options, kong.DefaultEnvars(envPrefix))...)
	if err != nil {
		panic(err) // the struct above is wrong
	}
	l.command, err = parser.Parse(args)
	return l, err
}

func main() {
	l, err := load(os.Args[1:])
	if err != nil {
		_, inFile := errors.AsType[*configError](err)
		if inFile {
			fmt.Fprintf(os.Stderr, "%v\n", err)
		} else {
			fmt.Fprintf(os.Stderr, "blindrelay: %v\nSee `blindrelay --help`.\n", err)
		}
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	l.command.BindTo(ctx, (*context.Context)(nil))
	l.command.Bind(l)
	if err := l.file.locate(l.command.Run()); err != nil {
		if _, ok := errors.AsType[*configError](err); ok {
			fmt.Fprintf(os.Stderr, "%v\n", err)
			os.Exit(exitUsage)
		}
		fmt.Fprintf(os.Stderr, "blindrelay: %v\n", err)
		if _, ok := errors.AsType[usageError](err); ok {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}
