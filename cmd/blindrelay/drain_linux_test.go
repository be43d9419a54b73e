package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// awaitLeaving waits until the relay asks the endpoint to move.
func awaitLeaving(t *testing.T, a *hop.Registration) {
	t.Helper()
	select {
	case <-a.Leaving():
	case <-time.After(20 * time.Second):
		t.Fatal("the relay said no goodbye")
	}
	if !a.Draining() || a.RetryAfter() == 0 {
		t.Fatalf("the relay said %v, move after %v", a.Err(), a.RetryAfter())
	}
}

// ended waits for the program's end and returns its exit code.
func (p *process) ended(t *testing.T) int {
	t.Helper()
	timer := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	io.Copy(io.Discard, p.stdout)
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// TestDrainBySignal sends SIGTERM while a stream runs. The stream goes on, the
// operator's pages tell, nobody new is let in, and the relay ends when its
// endpoints have left.
func TestDrainBySignal(t *testing.T) {
	ops := freePort(t)
	p := serve(t, "serve", "--admit", "open", "--ops", ops, "--drain-timeout", "1m")
	a, route := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
	device := attach(t, newDialer(t), p.relay(t), route)
	stream, err := device.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	home, err := a.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hop.ReadIncoming(home); err != nil {
		t.Fatal(err)
	}

	p.cmd.Process.Signal(syscall.SIGTERM)
	awaitLeaving(t, a)
	for page, want := range map[string]struct {
		status int
		text   string
	}{
		"/healthz": {200, "ok"}, "/readyz": {503, "emptied"},
		"/metrics": {200, "\nblindrelay_draining 1\n"},
	} {
		if status, body := fetch(t, "http://"+ops+page); status != want.status || !strings.Contains(body, want.text) {
			t.Errorf("%s says %d and not %q:\n%s", page, status, want.text, body)
		}
	}
	cert := transporttest.Certificate(t)
	s, err := newDialer(t).Dial(t.Context(), p.relay(t), &cert)
	if err != nil {
		t.Fatal(err)
	}
	_, err = hop.Register(t.Context(), s, wire.Register{})
	if closed, ok := errors.AsType[*wire.ClosedError](err); !ok || closed.Code != wire.CodeDraining {
		t.Errorf("a new agent gets %v", err)
	}
	home.Write([]byte("x"))
	if _, err := stream.Read(make([]byte, 1)); err != nil {
		t.Errorf("the stream does not go on: %v", err)
	}
	device.Close(wire.CodeNone, "")
	a.Close(wire.CodeNone, "")
	begin := time.Now()
	if code := p.ended(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &p.stderr)
	}
	t.Logf("the relay ended %v after its last endpoint", time.Since(begin).Round(time.Millisecond))
}

// TestDrainEnds ends drains whose endpoints stay: by time, and by a second
// signal.
func TestDrainEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout string
		again   os.Signal
		code    int
	}{
		"time is up":       {"1s", nil, 0},
		"a second SIGTERM": {"1h", syscall.SIGTERM, -1},
		"a SIGINT":         {"1h", os.Interrupt, -1},
	} {
		t.Run(name, func(t *testing.T) {
			p := serve(t, "serve", "--admit", "open", "--drain-timeout", tc.timeout)
			a, _ := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
			p.cmd.Process.Signal(syscall.SIGTERM)
			awaitLeaving(t, a)
			if tc.again != nil {
				p.cmd.Process.Signal(tc.again)
			}
			if code := p.ended(t); code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, &p.stderr)
			}
			if tc.again == nil {
				<-a.Done()
			}
		})
	}
}

// drain starts `blindrelay drain`.
func drain(t *testing.T, state string, args ...string) (lines *bufio.Scanner, wait func() (code int, stderr string)) {
	t.Helper()
	cmd := command(t, "serve", append([]string{"drain", "--state", state}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	return bufio.NewScanner(out), func() (int, string) {
		defer timer.Stop()
		io.Copy(io.Discard, out)
		cmd.Wait()
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
}

// TestDrainByCommand empties a relay with the command, which counts along.
func TestDrainByCommand(t *testing.T) {
	p := serve(t, "serve", "--admit", "open")
	info, err := os.Stat(filepath.Join(p.state, drainSocket))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: mode %v, %v", info.Mode(), err)
	}
	var agents []*hop.Registration
	for range 2 {
		a, _ := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
		agents = append(agents, a)
	}
	lines, wait := drain(t, p.state, "--timeout", "1m")
	want := func(text string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != text {
			t.Errorf("it says %q, want %q", lines.Text(), text)
		}
	}
	want("2 sessions left")
	for _, a := range agents {
		awaitLeaving(t, a)
	}
	second, waitSecond := drain(t, p.state) // watches, and changes nothing
	if !second.Scan() || second.Text() != "2 sessions left" {
		t.Errorf("a second command says %q", second.Text())
	}
	agents[0].Close(wire.CodeNone, "")
	want("1 session left")
	agents[1].Close(wire.CodeNone, "")
	want("0 sessions left")
	for _, w := range []func() (int, string){wait, waitSecond} {
		if code, stderr := w(); code != 0 || stderr != "" {
			t.Errorf("exit code %d\n%s", code, stderr)
		}
	}
	if code := p.ended(t); code != 0 {
		t.Errorf("the relay's exit code is %d\n%s", code, &p.stderr)
	}
	// Its file is still there: a relay that runs removes none.
	if c, err := net.Dial("unix", filepath.Join(p.state, drainSocket)); err == nil {
		c.Close()
		t.Error("somebody still answers at the socket")
	}
}

// TestDrainByCommandInTime has an agent that stays, at a relay whose
// predecessor was killed and left its socket behind.
func TestDrainByCommandInTime(t *testing.T) {
	killed := serve(t, "serve")
	killed.cmd.Process.Kill()
	killed.cmd.Wait()
	p := start(t, command(t, "serve", "serve", "--listen", "127.0.0.1:0", "--ops", "", "--state", killed.state, "--admit", "open"))
	register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
	_, wait := drain(t, killed.state, "--timeout", "1s")
	if code, stderr := wait(); code != 1 || !strings.Contains(stderr, "time was up: 1") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if code := p.ended(t); code != 0 {
		t.Errorf("the relay's exit code is %d\n%s", code, &p.stderr)
	}
}

// TestDrainCommandCut sends SIGTERM to a relay that the command gave an hour.
func TestDrainCommandCut(t *testing.T) {
	p := serve(t, "serve", "--admit", "open", "--drain-timeout", "1s")
	a, _ := register(t, newDialer(t), p.relay(t), transporttest.Certificate(t))
	_, wait := drain(t, p.state, "--timeout", "1h")
	awaitLeaving(t, a)
	p.cmd.Process.Signal(syscall.SIGTERM)
	if code := p.ended(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, &p.stderr)
	}
	if code, _ := wait(); code != 1 {
		t.Errorf("the command's exit code is %d", code)
	}
}

func TestDrainMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		state string
		args  []string
		code  int
		says  string
	}{
		"no relay":        {t.TempDir(), nil, 1, "no relay answers"},
		"too long a path": {"/" + strings.Repeat("x", maxSocketPath), nil, 1, "shorter --state"},
		"a negative time": {t.TempDir(), []string{"--timeout=-1s"}, 2, "--timeout"},
		"no time":         {t.TempDir(), []string{"--timeout", "soon"}, 2, "soon"},
	} {
		t.Run(name, func(t *testing.T) {
			_, wait := drain(t, tc.state, tc.args...)
			if code, stderr := wait(); code != tc.code || !strings.Contains(stderr, tc.says) {
				t.Errorf("exit code %d, want %d and a word of %q:\n%s", code, tc.code, tc.says, stderr)
			}
		})
	}
}

// TestDrainSocket says what no command would.
func TestDrainSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := listenDrain(dir, nil); err == nil {
		t.Error("a socket in a directory that there is not")
	}
	os.Mkdir(dir, 0o750)
	if _, err := listenDrain(dir, nil); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a socket in a directory of others: %v", err)
	}
	os.Chmod(dir, 0o700)
	d, err := listenDrain(dir, func() int { return 3 })
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := listenDrain(dir, nil); err == nil || !strings.Contains(err.Error(), "another relay") {
		t.Errorf("a second socket: %v", err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("unix", filepath.Join(dir, drainSocket))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for _, text := range []string{"\n", "drain\n", "drain soon\n", "drain -1s\n", "stop 1s\n", "drain " + strings.Repeat("1", 100) + "\n"} {
		c := dial()
		io.WriteString(c, text)
		if said, _ := io.ReadAll(c); len(said) > 0 {
			t.Errorf("%q is answered with %q", text, said)
		}
	}
	if len(d.asked) != 0 {
		t.Error("the relay takes nonsense for a command")
	}
	dial() // says nothing, and must not hold up the end
	c := dial()
	io.WriteString(c, "drain 7s\n")
	if within := <-d.asked; within != 7*time.Second {
		t.Errorf("the relay is given %v", within)
	}
	begin := time.Now()
	d.close()
	if said, err := io.ReadAll(c); err != nil || string(said) != "3\n" {
		t.Errorf("the last word is %q, %v", said, err)
	}
	if took := time.Since(begin); took > socketTime/2 {
		t.Errorf("the end took %v", took)
	}
}

// TestFollow reads what a relay may say.
func TestFollow(t *testing.T) {
	for said, want := range map[string]struct {
		out string
		ok  bool
	}{
		"2\n1\n0\n": {"2 sessions left\n1 session left\n0 sessions left\n", true},
		"0\n":       {"0 sessions left\n", true},
		"4\n":       {"4 sessions left\n", false},
		"":          {"", false},
		"hello\n":   {"", false},
		"-1\n":      {"", false},
	} {
		var out strings.Builder
		err := follow(context.Background(), strings.NewReader(said), &out)
		if out.String() != want.out || (err == nil) != want.ok {
			t.Errorf("after %q: printed %q, %v", said, out.String(), err)
		}
	}
}
