// Command demo plays films through a blind relay, all on this machine: it
// starts a media server, an agent beside it, a relay, and a device, which speak
// over real UDP sockets, and prints the URL of the device's local port. The
// page behind it shows next to the picture what the relay sees of it.
//
//	go run ./cmd/demo          the clip that ships with it
//	go run ./cmd/demo DIR      the films of a folder
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/blindrelay/blindrelay/cmd/demo/internal/cinema"
	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/localrelay"
	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// bufferMemory is plenty for one person's films.
const bufferMemory = 256 << 20

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), `usage: demo [-listen HOST:PORT] [DIR]

Plays films through a blind relay on this machine and prints a URL to open in
a browser. Without DIR it plays a short clip of its own, with DIR the films of
that folder.

`)
		flag.PrintDefaults()
	}
	listen := flag.String("listen", "127.0.0.1:0", "address of the device's local port")
	verbose := flag.Bool("v", false, "log what the parts do")
	flag.Parse()
	if flag.NArg() > 1 {
		flag.Usage()
		os.Exit(2)
	}
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *listen, flag.Arg(0), log); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run starts every part, prints the URL to out, and ends all of them with ctx.
func run(ctx context.Context, out io.Writer, listen, dir string, log *slog.Logger) (err error) {
	state, err := os.MkdirTemp("", "blindrelay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	parts := &parts{log: log}
	defer func() { err = errors.Join(err, parts.stop()) }()

	w := cinema.NewWire()
	server, err := parts.startServer(dir, w)
	if err != nil {
		return fmt.Errorf("media server: %w", err)
	}
	at, err := parts.startRelay(w)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	home, agent, err := parts.startAgent(ctx, filepath.Join(state, "home"), at, server)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	invite, err := home.NewInvite("browser", 0, false)
	if err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	if err := agent.Publish(ctx); err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	local, err := parts.startDevice(ctx, listen, invite)
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	fmt.Fprintf(out, "Open this in a browser:\n\n    http://%s/\n\n", local)
	fmt.Fprintf(out, "media server %s <- agent <- relay %s (UDP) <- device <- browser\n", server, at.Addr)
	fmt.Fprintln(out, "Ctrl-C ends it.")
	<-ctx.Done()
	return nil
}

// parts are what runs; they are stopped in reverse order.
type parts struct {
	log   *slog.Logger
	stops []func() error
}

func (p *parts) onStop(f func() error) { p.stops = append(p.stops, f) }

func (p *parts) stop() error {
	var errs []error
	for i := len(p.stops) - 1; i >= 0; i-- {
		errs = append(errs, p.stops[i]())
	}
	return errors.Join(errs...)
}

// serve runs f in a goroutine until stop makes it return.
func (p *parts) serve(f func() error, stop func() error) {
	done := make(chan error, 1) // f's one result
	go func() { done <- f() }()
	p.onStop(func() error { return errors.Join(stop(), <-done) })
}

// startServer starts the media server and returns its URL.
func (p *parts) startServer(dir string, w *cinema.Wire) (*url.URL, error) {
	c, err := cinema.New(cinema.Config{Dir: dir, Wire: w})
	if err != nil {
		return nil, err
	}
	p.onStop(c.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	p.serve(func() error {
		if err := server.Serve(ln); err != http.ErrServerClosed {
			return err
		}
		return nil
	}, server.Close)
	return &url.URL{Scheme: "http", Host: ln.Addr().String()}, nil
}

// startRelay starts a relay with a tap and returns where it is.
func (p *parts) startRelay(w *cinema.Wire) (wire.Relay, error) {
	r, err := localrelay.Start(localrelay.Config{
		BufferMemory: bufferMemory,
		Tap:          func(ln relay.Listener) relay.Listener { return tap{ln, w} },
		Log:          p.log,
	})
	if err != nil {
		return wire.Relay{}, err
	}
	p.onStop(r.Close)
	return r.At, nil
}

// startAgent shares the media server through the relay.
func (p *parts) startAgent(ctx context.Context, dir string, at wire.Relay, server *url.URL) (*pair.Home, *endpoint.Agent, error) {
	home, err := pair.OpenHome(dir)
	if err != nil {
		return nil, nil, err
	}
	p.onStop(home.Close)
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: []wire.Relay{at}, Log: p.log})
	if err != nil {
		return nil, nil, err
	}
	p.onStop(agent.Close)
	origin, err := endpoint.NewHTTPOrigin(server, p.log)
	if err != nil {
		return nil, nil, err
	}
	p.serve(func() error { return origin.Serve(context.Background(), agent.Listen()) }, agent.Close)
	return home, agent, agent.Ready(ctx)
}

// startDevice pairs a device and returns the address of its local port.
func (p *parts) startDevice(ctx context.Context, listen string, invite pair.Invite) (net.Addr, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	server, err := endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: invite, Log: p.log})
	if err != nil {
		return nil, err
	}
	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server, Log: p.log})
	if err != nil {
		return nil, err
	}
	p.onStop(dialer.Close)
	if err := dialer.Connect(ctx); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "", "") }
	p.serve(func() error { return endpoint.ServeLocal(context.Background(), ln, dial, p.log) }, ln.Close)
	return ln.Addr(), nil
}
