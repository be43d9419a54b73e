// Command blindlink is both endpoints of a blind relay: `share` makes a media
// server at home reachable, `open` brings it to a local port of another device.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// Libraries write to the standard logger what may quote a server's words,
	// and the transport itself reports small UDP buffers.
	log.SetOutput(io.Discard)
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop) // the second signal kills
	code := run(ctx, takeArguments(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// app is what commands work with.
type app struct {
	context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	log            *slog.Logger
}

// usageError is a mistake in what the user typed.
type usageError struct{ error }

// errSaid fails a command that has printed why as its result.
var errSaid = errors.New("the result says why")

// exitNow leaves the parser after it has printed the help.
type exitNow int

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			n, ok := r.(exitNow)
			if !ok {
				panic(r)
			}
			code = int(n)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("blindlink"),
		kong.Description(description),
		kong.DefaultEnvars("BLINDLINK"),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(n int) { panic(exitNow(n)) }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "blindlink:", err)
		return exitFailed
	}
	command, err := parser.Parse(args)
	if err == nil {
		a := &app{Context: ctx, stdin: stdin, stdout: stdout, stderr: stderr, log: c.logger(stderr)}
		if err = command.Run(a); err == nil {
			return exitOK
		}
		if errors.Is(err, errSaid) {
			return exitFailed
		}
		if _, mistake := errors.AsType[usageError](err); !mistake {
			fmt.Fprintln(stderr, "blindlink:", err)
			return exitFailed
		}
	}
	fmt.Fprintf(stderr, "blindlink: %v\nTry `blindlink --help` or `blindlink COMMAND --help`.\n", err)
	return exitUsage
}

func (c *cli) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
