package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestServe runs the relay as an operator would: a stream passes, the
// operator's pages tell, a signal ends it in order.
func TestServe(t *testing.T) {
	for name, sig := range map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": os.Interrupt} {
		t.Run(name, func(t *testing.T) {
			ops := freePort(t)
			p := serve(t, "serve", "--admit", "open", "--ops", ops, "--drain-timeout", "0")
			if !p.relay(t).Pinned() || !strings.HasPrefix(p.address, "127.0.0.1:") {
				t.Errorf("the relay's line is %q, want HOST:PORT[/TCPPORT]#PIN", p.address)
			}
			a, route := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
			ctx := t.Context()
			device, err := attach(t, newDialer(t), p.relay(t), route).Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			agent, err := a.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := hop.ReadIncoming(agent); err != nil {
				t.Fatal(err)
			}
			device.Write([]byte("x"))
			if _, err := agent.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			for page, want := range map[string]string{
				"/healthz": "ok", "/readyz": "ok",
				"/metrics": "\nblindrelay_agents 1\n",
			} {
				if status, body := fetch(t, "http://"+ops+page); status != 200 || !strings.Contains(body, want) {
					t.Errorf("%s says %d and not %q:\n%s", page, status, want, body)
				}
			}
			if code := p.stop(t, sig); code != 0 {
				t.Errorf("exit code %d\n%s", code, &p.stderr)
			}
			<-a.Done()
			if closed, ok := errors.AsType[*wire.ClosedError](a.Err()); !ok || closed.Code != wire.CodeShutdown {
				t.Errorf("the agent heard %v, want a goodbye", a.Err())
			}
		})
	}
}

// TestNoCore looks at the limit of core files that the relay gave itself.
func TestNoCore(t *testing.T) {
	p := serve(t, "serve")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 +bytes`).Match(limits) {
		t.Errorf("the relay may leave a core:\n%s", limits)
	}
}

// TestRestart starts the relay again with its state: it is the same one.
func TestRestart(t *testing.T) {
	p := serve(t, "serve")
	pin := p.relay(t).Pin
	p.stop(t, syscall.SIGTERM)
	again := start(t, command(t, "serve", "serve", "--listen", "127.0.0.1:0", "--ops", "", "--state", p.state))
	if again.relay(t).Pin != pin {
		t.Error("the relay has another pin after a restart")
	}
	id := [2]*identity{}
	for i := range id {
		var err error
		if id[i], err = (identityFiles{dir: p.state}).load(); err != nil {
			t.Fatal(err)
		}
	}
	if id[0].resetKey != id[1].resetKey || id[0].tokenKey != id[1].tokenKey || id[0].resetKey == id[0].tokenKey || id[0].resetKey == [32]byte{} {
		t.Error("the keys are not the ones that were stored")
	}
	for _, name := range []string{"hop.key", "reset.key", "token.key"} {
		info, err := os.Stat(filepath.Join(p.state, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestAdmission(t *testing.T) {
	known, unknown := transporttest.Certificate(t), transporttest.Certificate(t)
	route := wire.RouteOf(known.Leaf.RawSubjectPublicKeyInfo)
	p := serve(t, "serve", "--allow", route.String()+","+wire.Route{1}.String())
	register(t, newDialer(t), p.relay(t), known)
	wantRefused(t, p.relay(t), unknown)

	nobody := serve(t, "serve")
	wantRefused(t, nobody.relay(t), known)
	nobody.stop(t, syscall.SIGTERM)
	if said := nobody.stderr.String(); !strings.Contains(said, "--allow") || !strings.Contains(said, "`blindlink share` prints at home") {
		t.Errorf("the relay does not say how to admit the agent:\n%s", said)
	}
}

func wantRefused(t *testing.T, r wire.Relay, cert tls.Certificate) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := newDialer(t).Dial(ctx, r, &cert)
	if err != nil {
		t.Fatal(err)
	}
	_, err = hop.Register(ctx, s, wire.Register{})
	if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeNotAdmitted {
		t.Errorf("register: %v, want not admitted", err)
	}
}

// TestMistakes calls the relay wrong or in a place where it cannot run. Each
// gets a sentence that says what to do, and the exit code that it is due.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	os.Mkdir(open, 0o755)
	os.Chmod(open, 0o755)
	good := filepath.Join(dir, "good")
	if _, err := (identityFiles{dir: good}).load(); err != nil {
		t.Fatal(err)
	}
	// damaged is a good state directory in which one file is changed.
	damaged := func(name string, change func(path string)) string {
		state := filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(state, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		os.Chmod(state, 0o700)
		for _, f := range []string{"hop.key", "reset.key", "token.key"} {
			os.Chmod(filepath.Join(state, f), 0o600)
		}
		change(filepath.Join(state, name))
		return state
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	world := filepath.Join(dir, "world.key")
	os.WriteFile(world, []byte("x"), 0o644)
	os.Chmod(world, 0o644)

	for name, tc := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no command":        {nil, 2, "serve"},
		"unknown flag":      {[]string{"serve", "--port", "1"}, 2, "unknown flag --port"},
		"no route":          {[]string{"serve", "--allow", "home"}, 2, "not a route"},
		"no size":           {[]string{"serve", "--buffer-memory", "lots"}, 2, "256M"},
		"no level":          {[]string{"serve", "--log-level", "loud"}, 2, "loud"},
		"open and allow":    {[]string{"serve", "--admit", "open", "--allow", wire.Route{}.String()}, 2, "give one of the two"},
		"allow and ticket":  {[]string{"serve", "--admit", "ticket", "--allow", wire.Route{}.String()}, 2, "no effect with --admit ticket"},
		"no issuer":         {[]string{"serve", "--admit", "ticket"}, 2, "blindrelay ticket new"},
		"no service":        {[]string{"serve", "--admit", "ask"}, 2, "--ask-url"},
		"impatient":         {[]string{"serve", "--admit", "ask", "--ask-url", "http://127.0.0.1:1", "--ask-timeout", "1ms"}, 2, "--ask-timeout"},
		"no key set":        {[]string{"serve", "--state", good, "--admit", "ticket", "--jwks", filepath.Join(dir, "none")}, 2, "no such file"},
		"no config":         {[]string{"serve", "--config", filepath.Join(dir, "none")}, 2, "blindrelay config"},
		"wrong config":      {[]string{"serve", "--config", config(t, "admit: open\nport: 1\n")}, 2, ":2: unknown key \"port\""},
		"certificate alone": {[]string{"serve", "--tls-cert", "x"}, 2, "--tls-key"},
		"negative drain":    {[]string{"serve", "--drain-timeout", "-1s"}, 2, "--drain-timeout"},
		"too little memory": {[]string{"serve", "--state", good, "--buffer-memory", "1M"}, 1, "--buffer-memory"},
		"port in use":       {[]string{"serve", "--state", good, "--listen", udp.LocalAddr().String()}, 1, "another program"},
		"tcp port in use":   {[]string{"serve", "--state", good, "--listen", "127.0.0.1:0", "--listen-tcp", tcp.Addr().String()}, 1, "--listen-tcp"},
		"ops port in use":   {[]string{"serve", "--state", good, "--ops", tcp.Addr().String()}, 1, "--ops"},
		"open state":        {[]string{"serve", "--state", open}, 1, "chmod 700"},
		"state is a file":   {[]string{"serve", "--state", world}, 1, "not a directory"},
		"open key":          {[]string{"serve", "--state", damaged("hop.key", func(p string) { os.Chmod(p, 0o640) })}, 1, "chmod 600"},
		"key is a link":     {[]string{"serve", "--state", damaged("token.key", func(p string) { os.Rename(p, p+"2"); os.Symlink(p+"2", p) })}, 1, "link"},
		"damaged key":       {[]string{"serve", "--state", damaged("hop.key", func(p string) { os.WriteFile(p, []byte("x"), 0o600) })}, 1, "PEM"},
		"damaged reset key": {[]string{"serve", "--state", damaged("reset.key", func(p string) { os.Truncate(p, 9) })}, 1, "32 bytes"},
		"key file of all":   {[]string{"serve", "--state", good, "--tls-key", world}, 1, "chmod 600"},
		"no key file":       {[]string{"serve", "--state", good, "--reset-key", filepath.Join(dir, "none")}, 1, "no such file"},
		"no such address":   {[]string{"serve", "--state", good, "--listen", "192.0.2.77:0"}, 1, "does not have that address"},
	} {
		t.Run(name, func(t *testing.T) {
			args := tc.args
			if len(args) > 0 && !strings.Contains(strings.Join(args, " "), "--ops") {
				args = append(args, "--ops", "")
			}
			cmd := command(t, "serve", args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
			defer timer.Stop()
			if _, ok := errors.AsType[*exec.ExitError](cmd.Run()); !ok {
				t.Fatal("it ended without an error")
			}
			if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(stderr.String(), tc.says) {
				t.Errorf("exit code %d, want %d and a word of %q:\n%s", code, tc.code, tc.says, &stderr)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout is for results, it has %q", &stdout)
			}
		})
	}
}

// TestEnvironment gives flags as variables.
func TestEnvironment(t *testing.T) {
	cmd := command(t, "serve", "serve")
	state := filepath.Join(t.TempDir(), "state")
	cmd.Env = append(cmd.Env, "BLINDRELAY_LISTEN=127.0.0.1:0", "BLINDRELAY_OPS=", "BLINDRELAY_STATE="+state,
		"BLINDRELAY_ADMIT=open", "BLINDRELAY_DRAIN_TIMEOUT=0", "BLINDRELAY_LOG_FORMAT=json", "BLINDRELAY_BUFFER_MEMORY=64M")
	p := start(t, cmd)
	register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
	p.stop(t, syscall.SIGTERM)
	if said := p.stderr.String(); !strings.HasPrefix(said, "{") || !strings.Contains(said, `"buffer_memory":67108864`) {
		t.Errorf("the log says\n%s", said)
	}
}

// TestListenTCP lets an agent and a device in over TCP: at the port of UDP, at
// one that was asked for, and not at all.
func TestListenTCP(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		other bool // than the port of UDP
		none  bool
	}{
		"as UDP":  {},
		"another": {args: []string{"--listen-tcp", "127.0.0.1:0"}, other: true},
		"none":    {args: []string{"--listen-tcp", ""}, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, "serve", append([]string{"--admit", "open", "--drain-timeout", "0"}, tc.args...)...)
			at := p.relay(t)
			if (at.TCPPort != 0) != tc.other {
				t.Errorf("the relay's line is %q", p.address)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cert := transporttest.Certificate(t)
			s, err := newDialer(t).DialTCP(ctx, at, &cert)
			if tc.none {
				if err == nil || !strings.Contains(err.Error(), "--listen-tcp") {
					t.Errorf("dialed over TCP: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			a, err := hop.Register(ctx, s, wire.Register{Tokens: []wire.TokenHash{token.Hash()}})
			if err != nil {
				t.Fatal(err)
			}
			// The device comes over QUIC: carriers join.
			if _, err := attach(t, newDialer(t), at, wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)).Open(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Accept(ctx); err != nil {
				t.Fatal(err)
			}
			if code := p.stop(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d\n%s", code, &p.stderr)
			}
			<-a.Done()
			if closed, ok := errors.AsType[*wire.ClosedError](a.Err()); !ok || closed.Code != wire.CodeShutdown {
				t.Errorf("the agent heard %v, want a goodbye", a.Err())
			}
		})
	}
}

func TestVersion(t *testing.T) {
	out, err := command(t, "serve", "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "blindrelay ") {
		t.Errorf("version prints %q, %v", out, err)
	}
}

// freePort returns a loopback address whose TCP port was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestSharedKeys starts two relays with the same files: endpoints cannot tell
// them apart.
func TestSharedKeys(t *testing.T) {
	first := serve(t, "serve")
	args := []string{"--tls-key", filepath.Join(first.state, "hop.key"),
		"--reset-key", filepath.Join(first.state, "reset.key"), "--token-key", filepath.Join(first.state, "token.key")}
	second := serve(t, "serve", args...)
	if first.relay(t).Pin != second.relay(t).Pin {
		t.Error("two relays with the same key have different pins")
	}
	if _, err := os.Stat(second.state); err == nil {
		t.Error("a state directory was made that nothing is kept in")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := newDialer(t).Dial(ctx, second.relay(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close(wire.CodeNone, "")
}
