package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writePair writes a certificate and its key.
func writePair(t *testing.T, cert tls.Certificate, certPath, keyPath string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, certPath, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw})))
	writeFile(t, keyPath, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func routeOf(cert tls.Certificate) wire.Route {
	return wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
}

// TestReload changes whom a relay admits, its certificate and its log while an
// agent's stream runs: not a byte of that is lost, an agent that is no longer
// admitted hears why, and who comes now meets what is new.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	certPath, keyPath, path := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "blindrelay.yaml")
	old, next := transporttest.Certificate(t), transporttest.Certificate(t)
	stays, leaves, comes := transporttest.Certificate(t), transporttest.Certificate(t), transporttest.Certificate(t)
	write := func(level string, routes ...tls.Certificate) {
		text := fmt.Sprintf("tls_cert: %s\ntls_key: %s\nlog_level: %s\n", certPath, keyPath, level)
		if level == "debug" {
			text += "egress_rate: 800M\n"
		}
		text += "allow:\n"
		for _, c := range routes {
			text += "  - " + routeOf(c).String() + "\n"
		}
		writeFile(t, path, text)
	}
	writePair(t, old, certPath, keyPath)
	write("info", stays, leaves)
	ops := freePort(t)
	p := serve(t, "serve", "--config", path, "--ops", ops, "--drain-timeout", "0")
	at := p.relay(t)
	staying, route := register(t, newDialer(t), at, stays)
	leaving, _ := register(t, newDialer(t), at, leaves)

	ctx := t.Context()
	device, err := attach(t, newDialer(t), at, route).Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := staying.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hop.ReadIncoming(agent); err != nil {
		t.Fatal(err)
	}
	const size = 16 << 20
	sent := make(chan error, 1) // the goroutine's one value
	reloaded := make(chan struct{})
	go func() {
		chunk := make([]byte, 64<<10)
		for n := 0; n < size; n += len(chunk) {
			if n == size/2 {
				<-reloaded // the second half goes through the relay as it is then
			}
			for i := range chunk {
				chunk[i] = byte((n + i) % 251)
			}
			if _, err := device.Write(chunk); err != nil {
				sent <- err
				return
			}
		}
		sent <- device.CloseWrite()
	}()
	received := make(chan error, 1) // the goroutine's one value
	go func() { received <- readPattern(agent, size) }()

	writePair(t, next, certPath, keyPath)
	write("debug", stays, comes)
	p.cmd.Process.Signal(syscall.SIGHUP)
	select {
	case <-leaving.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the agent that is no longer admitted stays")
	}
	if closed, ok := errors.AsType[*wire.ClosedError](leaving.Err()); !ok || closed.Code != wire.CodeNotAdmitted || !strings.Contains(closed.Text, routeOf(leaves).String()) {
		t.Errorf("it heard %v", leaving.Err())
	}
	soon, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, dial := range []func(*transport.Dialer, wire.Relay) (transport.Session, error){
		func(d *transport.Dialer, r wire.Relay) (transport.Session, error) { return d.DialQUIC(soon, r, &comes) },
		func(d *transport.Dialer, r wire.Relay) (transport.Session, error) { return d.DialTCP(soon, r, &comes) },
	} {
		if _, err := dial(newDialer(t), at); !errors.Is(err, transport.ErrWrongRelay) {
			t.Errorf("the certificate before: %v", err)
		}
		now := at
		now.Pin = transport.PinOf(next.Leaf)
		s, err := dial(newDialer(t), now)
		if err != nil {
			t.Fatal(err)
		}
		a, err := hop.Register(soon, s, wire.Register{})
		if err != nil {
			t.Fatalf("an agent that is admitted now: %v", err)
		}
		a.Close(wire.CodeNone, "")
	}
	close(reloaded)
	if err := errors.Join(<-sent, <-received); err != nil {
		t.Errorf("the stream: %v", err)
	}
	if _, body := fetch(t, "http://"+ops+"/metrics"); !strings.Contains(body, "\nblindrelay_sessions_ended_total{code=\"not_admitted\"} 1\n") ||
		!strings.Contains(body, "\nblindrelay_sessions_ended_total{code=\"silent\"} 0\n") {
		t.Errorf("other sessions ended, too:\n%s", body)
	} else if !strings.Contains(body, "\nblindrelay_egress_limit_bytes_per_second 1e+08\n") {
		t.Errorf("the egress rate is not that of the config now:\n%s", body)
	}
	if code := p.stop(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	said := p.stderr.String()
	for _, word := range []string{"reloaded", "another key from now on", `"level":"DEBUG"`} {
		if !strings.Contains(said, word) {
			t.Errorf("the log does not say %q:\n%s", word, said)
		}
	}
}

// readPattern reads so many bytes, of which each is known, and the end.
func readPattern(r io.Reader, size int) error {
	b := make([]byte, 64<<10)
	for n := 0; ; {
		got, err := r.Read(b)
		for i := range b[:got] {
			if b[i] != byte((n+i)%251) {
				return fmt.Errorf("byte %d is wrong", n+i)
			}
		}
		n += got
		if err == io.EOF && n == size {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", n, err)
		}
	}
}

// TestReloadMistakes reloads what serve would not start with: all stays as it
// was, and the error says what is wrong.
func TestReloadMistakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := (identityFiles{dir: dir}).load(); err != nil {
		t.Fatal(err)
	}
	path := config(t, "admit: open\n")
	l, err := load([]string{"serve", "--config", path, "--state", dir})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	v := &live{loaded: l, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := v.admit(&l.cli.Serve); err != nil {
		t.Fatal(err)
	}
	if v.relay, err = relay.New(relay.Config{BufferMemory: 1 << 30, Admit: v.policy}); err != nil {
		t.Fatal(err)
	}
	jwks := filepath.Join(t.TempDir(), "jwks")
	writeFile(t, jwks, "{}")
	for text, word := range map[string]string{
		"admit: opn\n": path + ":1: admit: must be one of",
		"admit: open\n\nallow: aaaaaaaaaaaaaaaaaaaaaaaaaa\n": path + ":3: admit open admits every agent, which leaves allow without effect",
		"admit: ticket\njwks: " + jwks + "\n":                path + ":2: jwks: " + jwks + ": it holds no key",
		"admit: ask\nask_url: nowhere\n":                     path + ":2: ask_url: this is not the URL",
		"tls_key: /nowhere\n":                                "/nowhere: no such file",
	} {
		writeFile(t, path, text)
		if err := v.reload(t.Context()); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want a word of %q", text, err, word)
		}
		if _, ok := v.policy.(admit.Open); !ok || v.loaded != l {
			t.Errorf("%q: something has changed", text)
		}
	}
	os.Remove(filepath.Join(dir, "hop.key"))
	writeFile(t, path, "admit: open\n")
	if err := v.reload(t.Context()); err == nil || !strings.Contains(err.Error(), "no longer there") {
		t.Errorf("without its key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "hop.key")); err == nil {
		t.Error("a reload makes keys")
	}
	if log.Len() > 0 {
		t.Errorf("the log says %s", &log)
	}
}

// TestReloadAsksOnlyWhenAdmissionChanges leaves the agents alone where a reload
// changes something else.
func TestReloadAsksOnlyWhenAdmissionChanges(t *testing.T) {
	const asks = "admit: ask\nask_url: http://127.0.0.1:1\n"
	path := config(t, asks)
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := (identityFiles{dir: dir}).load(); err != nil {
		t.Fatal(err)
	}
	l, err := load([]string{"serve", "--config", path, "--state", dir})
	if err != nil {
		t.Fatal(err)
	}
	v := &live{loaded: l, log: slog.New(slog.DiscardHandler)}
	if err := v.admit(&l.cli.Serve); err != nil {
		t.Fatal(err)
	}
	if v.relay, err = relay.New(relay.Config{BufferMemory: 1 << 30, Admit: v.policy}); err != nil {
		t.Fatal(err)
	}
	first := v.policy
	for _, step := range []struct {
		text string
		same bool
	}{{asks, true}, {asks + "log_level: debug\n", true}, {asks + "ask_timeout: 1s\n", false}} {
		writeFile(t, path, step.text)
		if err := v.reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if (v.policy == first) != step.same {
			t.Errorf("%q: the policy is the same: %v", step.text, !step.same)
		}
		if want := v.cli.Serve.LogLevel; v.level.Level() != want {
			t.Errorf("the log's level is %v, want %v", v.level.Level(), want)
		}
	}
}

// TestCheck runs `blindrelay check`: what is wrong with a line by itself, with
// two together, and with a file that one names.
func TestCheck(t *testing.T) {
	jwks := filepath.Join(t.TempDir(), "jwks")
	writeFile(t, jwks, `{"keys":[{"kty":"OKP","crv":"Ed25519","d":"AA"}]}`)
	for text, tc := range map[string]struct {
		code int
		says string
	}{
		"admit: open\n":                       {0, "FILE: nothing is wrong with it\n"},
		"":                                    {0, "FILE: nothing is wrong with it\n"},
		"admit: opn\nlog_levle: info\n":       {2, "FILE:1: admit: must be one of \"allow\",\"ticket\",\"ask\",\"open\" but got \"opn\"; write for example \"admit: allow\"\nFILE:2: unknown key \"log_levle\": write \"log_level\"\n"},
		"\nissuer: AAAA\n":                    {2, "FILE:2: issuer: this is not an issuer: write the public key as `blindrelay ticket new` prints it"},
		"\nadmit: ticket\n":                   {2, "FILE:2: admit ticket needs the key that signs tickets: issuer KEY"},
		"\njwks: x\n":                         {2, "FILE:2: jwks has no effect with admit allow: remove it, or write admit ticket\n"},
		"admit: ticket\njwks: " + jwks + "\n": {2, "FILE:2: jwks: " + jwks + ": key 1 is a private one"},
		"admit: ask\n":                        {2, "FILE:1: admit ask needs the service to ask: ask_url URL\n"},
		"admit: ask\nask_url: x\n":            {2, "FILE:2: ask_url: this is not the URL of a service: write for example http://"},
		"admit: ask\nask_url: http://x\nask_timeout: 1h": {2, "FILE:3: ask_timeout takes a time from 100ms to 4s, for example 2s\n"},
		"tls_cert: /x\n":                   {2, "FILE:1: tls_cert needs the certificate's key: tls_key FILE\n"},
		"tls_key: /nowhere/x\n":            {2, "FILE:1: key file: stat /nowhere/x: no such file or directory\n"},
		"sockets: -1\n":                    {2, "FILE:1: sockets takes a number from 1"},
		"max_sessions: 0\n":                {2, "FILE:1: max_sessions takes a number from 1"},
		"route_devices: 0\n":               {2, "FILE:1: route_devices takes a number from 1"},
		"egress_rate: 5\n":                 {2, "FILE:1: egress_rate: \"5\" is not a rate"},
		"max_sessions_per_address: -2\n":   {2, "FILE:1: max_sessions_per_address takes a number from 1"},
		"max_handshakes: 0\n":              {2, "FILE:1: max_handshakes takes a number from 1"},
		"max_handshakes_per_address: -2\n": {2, "FILE:1: max_handshakes_per_address takes a number from 1"},
		"handshake_rate: 0\n":              {2, "FILE:1: handshake_rate takes a number from 1"},
		"handshake_rate_per_address: 0\n":  {2, "FILE:1: handshake_rate_per_address takes a number from 1"},
		"buffer_memory: 1M\n":              {2, "FILE:1: buffer memory"},
		"reset_key: " + jwks + "\n":        {2, "FILE:1: key file " + jwks + ": it does not hold 32 bytes"},
		"listen: everywhere\n":             {2, "FILE:1: listen: \"everywhere\" is not an address: write HOST:PORT"},
		"\nlisten_tcp: \"443\"\n":          {2, "FILE:2: listen_tcp: \"443\" is not an address: write HOST:PORT"},
		"ops: \"\"\n":                      {0, "FILE: nothing is wrong with it\n"},
	} {
		t.Run(text, func(t *testing.T) {
			path := config(t, text)
			stdout, stderr, code := relayCommand(t, "", "check", path)
			says := strings.ReplaceAll(stdout+stderr, path, "FILE")
			if code != tc.code || !strings.HasPrefix(says, tc.says) {
				t.Errorf("exit code %d, want %d and\n%s\nit says\n%s", code, tc.code, tc.says, says)
			}
		})
	}
	for want, args := range map[string][]string{
		"which config file?":     {"check"},
		"`blindrelay config`":    {"check", filepath.Join(t.TempDir(), "none")},
		"this is no config file": {"check", t.TempDir()},
	} {
		if _, said, code := relayCommand(t, "", args...); code != 2 || !strings.Contains(said, want) {
			t.Errorf("%v: exit code %d\n%s", args, code, said)
		}
	}
	if out, _, code := relayCommand(t, "", "config"); code != 0 || out != example(t) {
		t.Errorf("config prints another example, or fails: %d", code)
	}
}
