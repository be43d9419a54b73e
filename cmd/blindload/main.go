// Command blindload says how many people can watch films through a relay
// before one of them has to wait.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/blindrelay/blindrelay/loadtest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

type cli struct {
	Run runCmd `cmd:"" help:"Let viewers watch films through a relay, and report what they saw."`
}

type runCmd struct {
	Relay           string        `required:"" env:"BLINDLOAD_RELAY" placeholder:"HOST:PORT[#PIN]" help:"Relay to load, as 'blindrelay serve' prints it. It must run with --admit open."`
	Viewers         int           `default:"10" env:"BLINDLOAD_VIEWERS" help:"How many people watch at the same time."`
	ViewersPerAgent int           `default:"4" env:"BLINDLOAD_VIEWERS_PER_AGENT" help:"How many of them watch from the same home."`
	Bitrate         bitrate       `default:"8M" env:"BLINDLOAD_BITRATE" help:"Bitrate of each film in bit/s, with k, M or G."`
	Duration        time.Duration `default:"30s" env:"BLINDLOAD_DURATION" help:"How long they watch."`
	Ramp            time.Duration `default:"2s" env:"BLINDLOAD_RAMP" help:"Time over which they begin."`
	JSON            string        `name:"json" env:"BLINDLOAD_JSON" type:"path" placeholder:"FILE" help:"Write the whole report to FILE as JSON; - is standard output."`
	Verbose         bool          `short:"v" env:"BLINDLOAD_VERBOSE" help:"Log what the endpoints do."`
}

// errNotHeld ends a run in which somebody had to wait.
var errNotHeld = errors.New("not every viewer played without a stall or an error")

func (c *runCmd) Run(ctx context.Context) error {
	relay, err := wire.ParseRelay(c.Relay)
	if err != nil {
		return usageError{err}
	}
	cfg := loadtest.Config{
		Relay: relay, Viewers: c.Viewers, ViewersPerAgent: c.ViewersPerAgent,
		Bitrate: int64(c.Bitrate), Duration: c.Duration, Ramp: c.Ramp,
	}
	if c.Verbose {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	fmt.Fprintf(os.Stderr, "pairing %d devices ...\n", c.Viewers)
	report, err := loadtest.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if c.JSON == "-" {
		err = writeJSON(os.Stdout, report)
	} else {
		err = report.Write(os.Stdout)
		if err == nil && c.JSON != "" {
			err = writeFile(c.JSON, report)
		}
	}
	if err == nil && !report.Held() {
		err = errNotHeld
	}
	return err
}

func writeFile(name string, report *loadtest.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(writeJSON(f, report), f.Close())
}

func writeJSON(f *os.File, report *loadtest.Report) error {
	e := json.NewEncoder(f)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func main() {
	// The relay reports its own buffers; what blindload's sockets get does not
	// matter enough to print for each.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parser, err := kong.New(&cli{},
		kong.Name("blindload"),
		kong.Description("Load test for blindrelay. Exit code 0: everybody watched without a stall; 1: somebody had to wait, or the run failed; 2: usage."),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.UsageOnError(),
	)
	if err != nil {
		panic(err) // the declaration above is wrong
	}
	k, err := parser.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "blindload:", err)
		fmt.Fprintln(os.Stderr, "Run 'blindload --help' for what it can do.")
		os.Exit(2)
	}
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "blindload:", err)
		if errors.As(err, new(usageError)) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}
