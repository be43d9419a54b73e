package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// relayCommand runs a command and returns what it wrote and its exit code.
func relayCommand(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, "serve", args...)
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // else the race detector waits for a second
	cmd.Stdin = strings.NewReader(stdin)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		t.Fatal(err)
	}
	return string(out), errs.String(), cmd.ProcessState.ExitCode()
}

// TestTicketCommands makes tickets and reads them, and shows them to a relay.
func TestTicketCommands(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "issuer.key")
	cert := transporttest.Certificate(t)
	route := routeOf(cert).String()
	ticket, said, code := relayCommand(t, "", "ticket", "new", "--key", key, "--route", route, "--for", "1h")
	text, issuer, ok := strings.Cut(strings.TrimSpace(said), " ")
	if code != 0 || strings.Count(ticket, ".") != 2 || strings.Count(ticket, "\n") != 1 || !ok || text != "issuer" {
		t.Fatalf("exit code %d, %q, %q", code, ticket, said)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	if strings.Contains(ticket+said, "PRIVATE") {
		t.Error("the key is printed")
	}
	again, said, code := relayCommand(t, "", "ticket", "new", "--key", key, "--route", route, "--from", "2030-01-31T12:00:00Z", "--for", "24h")
	if code != 0 || strings.TrimSpace(said) != "issuer "+issuer {
		t.Errorf("the second ticket is signed otherwise: %d, %q", code, said)
	}

	shown, said, code := relayCommand(t, again, "ticket", "show")
	for _, want := range []string{"route      " + route + "\n", "from       2030-01-31T12:00:00Z\n", "until      2030-02-01T12:00:00Z\n", "signature  not checked"} {
		if code != 0 || said != "" || !strings.Contains(shown, want) {
			t.Errorf("it is shown without %q: %d, %q\n%s", want, code, said, shown)
		}
	}
	file := filepath.Join(dir, "ticket")
	writeFile(t, file, ticket)
	if shown, _, code = relayCommand(t, "", "ticket", "show", "--issuer", issuer, file); code != 0 || !strings.Contains(shown, "signature  good") {
		t.Errorf("a good one: %d\n%s", code, shown)
	}
	_, other, _ := relayCommand(t, "", "ticket", "new", "--key", filepath.Join(dir, "other.key"), "--route", route)
	for name, tc := range map[string]struct {
		stdin string
		args  []string
		code  int
		says  string
	}{
		"another issuer": {ticket, []string{"ticket", "show", "--issuer", strings.TrimSpace(strings.TrimPrefix(other, "issuer "))}, 1, "no issuer of this relay has signed"},
		"too early":      {again, []string{"ticket", "show", "--issuer", issuer}, 1, "valid from 2030-01-31T12:00:00Z"},
		"no ticket":      {"nonsense", []string{"ticket", "show"}, 1, "not a ticket"},
		"no file":        {"", []string{"ticket", "show", filepath.Join(dir, "none")}, 1, "no such file"},
		"no issuer":      {ticket, []string{"ticket", "show", "--issuer", "AAAA"}, 2, "not an issuer"},
		"no key":         {"", []string{"ticket", "new", "--route", route}, 2, "--key"},
		"no route":       {"", []string{"ticket", "new", "--key", key}, 2, "--route"},
		"no time":        {"", []string{"ticket", "new", "--key", key, "--route", route, "--for", "0s"}, 2, "--for"},
		"no PEM":         {"", []string{"ticket", "new", "--key", file, "--route", route}, 1, "PEM"},
		"nowhere":        {"", []string{"ticket", "new", "--key", filepath.Join(dir, "none", "key"), "--route", route}, 1, "make the key file"},
	} {
		if _, said, code := relayCommand(t, tc.stdin, tc.args...); code != tc.code || !strings.Contains(said, tc.says) {
			t.Errorf("%s: exit code %d, want %d and a word of %q:\n%s", name, code, tc.code, tc.says, said)
		}
	}
	os.Chmod(key, 0o644)
	if _, said, code := relayCommand(t, "", "ticket", "new", "--key", key, "--route", route); code != 1 || !strings.Contains(said, "chmod 600") {
		t.Errorf("a key that all may read: %d, %s", code, said)
	}

	p := serve(t, "serve", "--admit", "ticket", "--issuer", issuer, "--drain-timeout", "0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, tc := range []struct {
		ticket string
		code   wire.Code
	}{{strings.TrimSpace(ticket), wire.CodeNone}, {"", wire.CodeTicketMissing}, {strings.TrimSpace(again), wire.CodeTicketRefused}} {
		s, err := newDialer(t).Dial(ctx, p.relay(t), &cert)
		if err != nil {
			t.Fatal(err)
		}
		a, err := hop.Register(ctx, s, wire.Register{Ticket: tc.ticket})
		if err == nil {
			a.Close(wire.CodeNone, "")
		}
		closed, _ := errors.AsType[*wire.ClosedError](err)
		if err != nil && (closed == nil || closed.Code != tc.code) || err == nil && tc.code != wire.CodeNone {
			t.Errorf("register: %v, want %v", err, tc.code)
		}
	}
}

// TestAskedService has the relay ask a service, which admits one agent, refuses
// another with a sentence, and then is gone.
func TestAskedService(t *testing.T) {
	known, unknown := transporttest.Certificate(t), transporttest.Certificate(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if !strings.Contains(string(b), routeOf(known).String()) {
			http.Error(w, "pay your bill", http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer service.Close()
	ask := func() *process {
		return serve(t, "serve", "--admit", "ask", "--ask-url", service.URL, "--drain-timeout", "0")
	}
	p, blind := ask(), ask() // each logs a line a second at most
	register(t, newDialer(t), p.relay(t), known)
	refused := func(p *process, cert tls.Certificate, code wire.Code, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := newDialer(t).Dial(ctx, p.relay(t), &cert)
		if err != nil {
			t.Fatal(err)
		}
		_, err = hop.Register(ctx, s, wire.Register{})
		if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != code || !strings.Contains(closed.Text, text) {
			t.Errorf("register: %v, want %v and a word of %q", err, code, text)
		}
	}
	refused(p, unknown, wire.CodeNotAdmitted, "pay your bill")
	p.stop(t, syscall.SIGTERM)
	if said := p.stderr.String(); strings.Contains(said, "--allow") {
		t.Errorf("the log names a setting that has no effect here:\n%s", said)
	}
	service.Close()
	refused(blind, known, wire.CodeAdmitFailed, "could not find out")
	blind.stop(t, syscall.SIGTERM)
	if said := blind.stderr.String(); !strings.Contains(said, "ask the service") {
		t.Errorf("the log does not say why:\n%s", said)
	}
}
