package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

type openCmd struct {
	Server   string `arg:"" optional:"" name:"invite|server" help:"An invite from home, or the name of a server this device is paired with; nothing if there is only one. An invite that is typed here is in the list of processes for a moment, and in the shell's history; with '-' it is read from stdin, and $$BLINDLINK_INVITE may hold it too. It works once."`
	Listen   string `default:"127.0.0.1:8096" placeholder:"HOST:PORT" help:"Local address to serve. Whoever can connect to it is this device. Port 0 takes any. Default ${default}."`
	Carriers int    `default:"8" placeholder:"N" help:"Most connections to the relay that one stream may be spread over, 1 to 8, where that makes it faster. 1 stays with a single one, over QUIC where UDP gets through. Default ${default}."`
	Urgency  string `enum:"playing,prefetch,bulk" default:"playing" placeholder:"KIND" help:"What this port is for: playing, prefetch or bulk. When the server's relay is at a limit, bulk gives way to all that plays from the same server: run a second open with --urgency bulk and another --listen port for downloads and synchronisation. The relay learns which it is. Default ${default}."`
	State    string `placeholder:"DIR" help:"Directory with the key and the servers, closed to other users. Default: ~/.local/state/blindlink/open."`
}

// urgencies are what --urgency may say.
var urgencies = map[string]wire.Urgency{"playing": wire.Playing, "prefetch": wire.Prefetch, "bulk": wire.Bulk}

// inviteVariable holds an invite for `open` without an argument.
const inviteVariable = "BLINDLINK_INVITE"

// Run pairs if it has an invite, and serves the local port until it is told to
// stop.
func (c *openCmd) Run(a *app) error {
	dir, err := stateDir(c.State, "open")
	if err != nil {
		return err
	}
	// Everything that can fail here does so before the invite is used up.
	if c.Carriers < 1 || c.Carriers > endpoint.MaxCarriers {
		return fmt.Errorf("--carriers %d: a stream is spread over 1 to %d connections", c.Carriers, endpoint.MaxCarriers)
	}
	inv, err := c.invite(a.stdin)
	if err != nil {
		return err
	}
	if holds(dir, homeFile) && !holds(dir, awayFile) {
		return fmt.Errorf("%s is the state of `blindlink share`: give this device another --state DIR", dir)
	}
	away, err := pair.OpenAway(dir)
	if err != nil {
		return err
	}
	defer away.Close()
	ln, err := listenLocal(c.Listen)
	if err != nil {
		return err
	}
	defer ln.Close()
	warnIfOpen(a, ln.Addr())
	server, err := c.server(a, away, inv)
	if err != nil {
		return err
	}
	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: away.Identity(), Server: server, Log: a.log, Carriers: c.Carriers})
	if err != nil {
		return err
	}
	defer dialer.Close()
	control, err := listenControl(dir, openSocket(os.Getpid()))
	if err != nil {
		return err
	}
	defer control.Close()
	url := localURL(ln.Addr())
	return together(a,
		func(ctx context.Context) error {
			dial := func(ctx context.Context) (net.Conn, error) {
				return dialer.DialContext(endpoint.WithUrgency(ctx, urgencies[c.Urgency]), "", "")
			}
			return endpoint.ServeLocal(ctx, ln, dial, a.log)
		},
		func(ctx context.Context) error {
			return serveControl(ctx, control, a.log, func(ctx context.Context, d *dialogue, req request) {
				if req.Do == doVerify {
					d.finish(verifyOpen(ctx, dialer))
					return
				}
				d.finish(reply{Open: &openStatus{URL: url, DialerStatus: dialer.Status()}}, nil)
			})
		},
		func(ctx context.Context) error {
			if err := dialer.Connect(ctx); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("server %q: %w", server.Name, err)
			}
			if _, err := fmt.Fprintln(a.stdout, url); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		},
	)
}

// invitee is the invite that `open` was given, if any.
type invitee struct {
	pair.Invite
	given  bool
	always bool // from the environment: it is still there at the next start, when it is used up
}

// maxTyped is how much of stdin may be an invite, in bytes.
const maxTyped = 16 << 10

func (c *openCmd) invite(stdin io.Reader) (invitee, error) {
	text, must := c.Server, false
	inv := invitee{given: true}
	switch {
	case text == "-":
		b, err := io.ReadAll(io.LimitReader(stdin, maxTyped))
		if err != nil {
			return invitee{}, fmt.Errorf("read the invite from stdin: %w", err)
		}
		text, must = string(b), true
	case text == "":
		text, must, inv.always = os.Getenv(inviteVariable), true, true
		if text == "" {
			return invitee{}, nil
		}
		os.Unsetenv(inviteVariable)
	}
	var err error
	inv.Invite, err = pair.ParseInvite(text)
	// What is no invite is a server's name, unless it is far too long for one:
	// it may be a secret, which no message must repeat.
	if errors.Is(err, pair.ErrNotInvite) && !must && len(text) <= 64 {
		return invitee{}, nil
	}
	return inv, err
}

// server pairs, or finds the server that was paired with before.
func (c *openCmd) server(a *app, away *pair.Away, inv invitee) (pair.Server, error) {
	if !inv.given {
		return away.Find(c.Server)
	}
	host, _ := os.Hostname() // an empty name is replaced at home
	srv, err := endpoint.Pair(a, endpoint.PairConfig{
		Identity: away.Identity(), Invite: inv.Invite, Name: host, Log: a.log,
		Words: func(words string) {
			fmt.Fprintf(a.stderr, "Waiting for the owner, who must see the same words: %q\n", words)
		},
	})
	if err == nil {
		if srv, err = away.Add(srv); err != nil {
			return pair.Server{}, err
		}
		a.log.Info("paired", "server", srv.Name, "as", srv.Device)
		return srv, nil
	}
	if stored, known := paired(away, inv); inv.always && known && a.Err() == nil {
		a.log.Info("the invite in "+inviteVariable+" was not accepted; this device has paired with that server before", "server", stored.Name)
		return stored, nil
	}
	return pair.Server{}, err
}

// paired returns the stored server that an invite leads to.
func paired(away *pair.Away, inv invitee) (pair.Server, bool) {
	all, err := away.Servers()
	if err != nil {
		return pair.Server{}, false
	}
	for _, s := range all {
		if s.Pin == inv.Server {
			return s, true
		}
	}
	return pair.Server{}, false
}

func listenLocal(addr string) (net.Listener, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, usageError{fmt.Errorf("--listen %q is not HOST:PORT, like 127.0.0.1:8096", addr)}
	}
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the local port %s is in use by another program: choose another one, like --listen 127.0.0.1:8097", addr)
	case err != nil:
		return nil, fmt.Errorf("the local port cannot be opened: %w; choose another one with --listen", err)
	}
	return ln, nil
}

func warnIfOpen(a *app, addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		a.log.Warn("THE LOCAL PORT IS OPEN TO THE NETWORK: everybody who can reach it is this device to the media server; use --listen 127.0.0.1:8096 unless you want that", "listen", addr.String())
	}
}

// localURL is where a browser on this machine finds the port.
func localURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}

const openPrefix, openSuffix = "open-", ".sock"

// openSocket names the status socket of an `open`; several may share a state.
func openSocket(pid int) string { return fmt.Sprintf("%s%d%s", openPrefix, pid, openSuffix) }

func isOpenSocket(name string) bool {
	return strings.HasPrefix(name, openPrefix) && strings.HasSuffix(name, openSuffix)
}
