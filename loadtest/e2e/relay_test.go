//go:build e2e

package e2e

import (
	"context"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRelayLater starts the agent before its relay exists.
func TestRelayLater(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	r.stop(t)
	a := startAgent(t, r.address, startHello(t), newState(t))
	a.wantSaid(t, "relay", r.host())
	if out := a.stdout.String(); out != "" {
		t.Errorf("without a relay the agent says that it is reachable: %q", out)
	}
	r.again(t, "--admit", "open")
	a.firstLine(t)
	wantPage(t, open(t, a), 0)
}

// TestRelayStops ends the relay in order, and in the middle of a response; the
// endpoints wait for it and are back without anyone's help, and the response
// goes on.
func TestRelayStops(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	a := share(t, r, startDrip(t))
	d := open(t, a)
	stream := dripping(t, d)

	begin := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.told = true
	r.wantExit(t, 20*time.Second, 0) // it lets its endpoints go within 10 s
	t.Logf("the relay ended %v after SIGTERM", time.Since(begin).Round(time.Millisecond))
	wantNoPage(t, d, "relay", r.host())
	for _, p := range []*process{a.process, d.process} {
		if p.ended() {
			t.Fatalf("%s ended with code %d because its relay did", p.name, p.code)
		}
	}
	r.again(t, "--admit", "open")
	wantMore(t, stream, 20*time.Second)
	wantPage(t, d, 20*time.Second)
}

// TestRelayCrashes kills the relay and starts it again at once with the same
// state: the endpoints notice by its stateless resets, and a response goes on.
func TestRelayCrashes(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	d := open(t, share(t, r, startDrip(t)))
	stream := dripping(t, d)
	r.kill()
	r.again(t, "--admit", "open")
	wantMore(t, stream, 10*time.Second)
	wantPage(t, d, 20*time.Second)
}

// TestWrongPin gives the agent a relay whose key is another's.
func TestWrongPin(t *testing.T) {
	r, other := openRelay(t), openRelay(t)
	_, pin, _ := strings.Cut(other.address, "#")
	a := startAgent(t, r.host()+"#"+pin, startHello(t), newState(t))
	a.wantSaid(t, "key is not the one behind #", "new address line")
	if out := a.stdout.String(); out != "" {
		t.Errorf("with a wrong pin the agent says that it is reachable: %q", out)
	}
	run(t, 10*time.Second, "blindlink", "share", "--relay", r.host()+"#tooshort", "--to", "http://127.0.0.1:1", "--state", newState(t)).
		want(t, 2, "pin")
}

// TestNoPin gives the agent no pin, and the relay's own certificate is nothing
// that the machine trusts.
func TestNoPin(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	a := startAgent(t, r.host(), startHello(t), newState(t))
	a.wantSaid(t, "certificate", "#PIN")
	if out := a.stdout.String(); out != "" {
		t.Errorf("with an untrusted certificate the agent says that it is reachable: %q", out)
	}
}

// TestAgentGone opens a server whose agent is not there, and waits for it.
func TestAgentGone(t *testing.T) {
	t.Parallel() // it waits most of its time
	r := openRelay(t)
	a := share(t, r, startHello(t))
	text := a.invite(t)
	d := open(t, a)
	a.stop(t)
	wantNoPage(t, d, "blindlink share", "at home")
	run(t, 30*time.Second, "blindlink", "open", "--listen", "127.0.0.1:0", "--state", newState(t), text).
		want(t, 1, "server", "blindlink share")
	again := startAgent(t, r.address, startHello(t), a.state)
	again.firstLine(t)
	wantPage(t, d, 20*time.Second)
}

// TestNotAdmitted starts a relay that admits nobody. The agent names its route
// and what the operator has to type, and that works.
func TestNotAdmitted(t *testing.T) {
	t.Parallel() // it waits most of its time
	closed := startRelay(t, newState(t), "127.0.0.1:0")
	closed.wantSaid(t, "--allow", "--admit open")
	a := startAgent(t, closed.address, startHello(t), newState(t))
	a.wantSaid(t, "blindrelay serve", "--allow")
	if out := a.stdout.String(); out != "" {
		t.Errorf("without admission the agent says that it is reachable: %q", out)
	}
	route := regexp.MustCompile(`--allow ([a-z2-7]{26})\b`).FindStringSubmatch(a.stderr.String())
	if route == nil {
		t.Fatal("stderr holds no --allow with a route")
	}
	closed.stop(t)
	closed.again(t, "--allow", route[1])
	a.firstLine(t)
	wantPage(t, open(t, a), 0)

	other := startAgent(t, closed.address, startHello(t), newState(t))
	other.wantSaid(t, "--allow")
}

// TestPortInUse starts programs on ports that others hold.
func TestPortInUse(t *testing.T) {
	t.Parallel() // it waits most of its time
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run(t, 20*time.Second, "blindrelay", "serve", "--listen", c.LocalAddr().String(), "--state", newState(t), "--ops", freeAddress(t)).
		want(t, 1, c.LocalAddr().String(), "in use", "another port")

	r := openRelay(t)
	run(t, 20*time.Second, "blindrelay", "serve", "--listen", r.host(), "--state", newState(t), "--ops", freeAddress(t)).
		want(t, 1, r.host(), "in use", "another port")
	run(t, 20*time.Second, "blindrelay", "serve", "--listen", "127.0.0.1:0", "--state", newState(t), "--ops", r.ops).
		want(t, 1, r.ops, "in use", "--ops")

	a := share(t, r, startHello(t))
	run(t, 20*time.Second, "blindlink", "open", "--listen", r.ops, "--state", newState(t), a.invite(t)).
		want(t, 1, r.ops, "in use", "--listen")
	run(t, 20*time.Second, "blindlink", "share", "--relay", r.address, "--to", "http://127.0.0.1:1", "--state", a.state).
		want(t, 1, "running", a.state)
}

// TestOpenState gives every role a directory that others can read.
func TestOpenState(t *testing.T) {
	state := newState(t)
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	hint := []string{state, "chmod 700"}
	run(t, 20*time.Second, "blindrelay", "serve", "--listen", "127.0.0.1:0", "--ops", freeAddress(t), "--state", state).want(t, 1, hint...)
	r := openRelay(t)
	run(t, 20*time.Second, "blindlink", "share", "--relay", r.address, "--to", "http://127.0.0.1:1", "--state", state).want(t, 1, hint...)
	a := share(t, r, startHello(t))
	run(t, 20*time.Second, "blindlink", "open", "--listen", "127.0.0.1:0", "--state", state, a.invite(t)).want(t, 1, hint...)

	key := newState(t)
	second := startRelay(t, key, "127.0.0.1:0")
	second.stop(t)
	files, err := os.ReadDir(key)
	if err != nil || len(files) == 0 {
		t.Fatalf("the relay's state holds %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, %v, want nothing for others", f.Name(), info.Mode(), err)
		}
	}
}

// TestUsage asks for things that do not exist.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"blindrelay", "serve", "--no-such-flag"},
		{"blindrelay", "no-such-command"},
		{"blindrelay", "serve", "--allow", "not-a-route", "--state", newState(t)},
		{"blindlink", "share"},
		{"blindlink", "share", "--relay", "no-port", "--to", "http://127.0.0.1:1", "--state", newState(t)},
		{"blindlink", "share", "--relay", "127.0.0.1:1", "--to", "ftp://127.0.0.1", "--state", newState(t)},
		{"blindload", "run"},
	} {
		t.Run(strings.Join(args[:2], " "), func(t *testing.T) {
			r := run(t, 10*time.Second, args[0], args[1:]...).want(t, 2)
			if r.stdout != "" || r.stderr == "" {
				t.Errorf("want a sentence on stderr alone: %v", r)
			}
		})
	}
	for _, prog := range []string{"blindrelay", "blindlink"} {
		if r := run(t, 10*time.Second, prog, "version").want(t, 0); strings.Count(r.stdout, "\n") != 1 {
			t.Errorf("want one line: %v", r)
		}
	}
}

// TestEnvironment configures both programs by environment variables alone.
func TestEnvironment(t *testing.T) {
	state := newState(t)
	cmd := command(context.Background(), t, "blindrelay", "serve")
	ops := freeAddress(t)
	cmd.Env = append(cmd.Env, "BLINDRELAY_LISTEN=127.0.0.1:0", "BLINDRELAY_STATE="+state,
		"BLINDRELAY_OPS="+ops, "BLINDRELAY_ADMIT=open", "BLINDRELAY_LOG_FORMAT=json")
	p := start(t, "relay", cmd)
	r := relay{process: p, state: state, address: p.firstLine(t), ops: ops}
	p.wantSaid(t, `{"`)

	cmd = command(context.Background(), t, "blindlink", "share")
	a := agent{state: newState(t)}
	cmd.Env = append(cmd.Env, "BLINDLINK_RELAY="+r.address, "BLINDLINK_TO="+startHello(t), "BLINDLINK_STATE="+a.state)
	a.process = start(t, "agent", cmd)
	a.firstLine(t)
	wantPage(t, open(t, a), 0)
}

// TestOps reads what an operator's monitoring reads.
func TestOps(t *testing.T) {
	r := openRelay(t)
	a := share(t, r, startHello(t))
	d := open(t, a)
	wantPage(t, d, 0)
	for _, page := range []string{"/healthz", "/readyz"} {
		if status, body, err := get("http://" + r.ops + page); err != nil || status != 200 {
			t.Errorf("%s: %d %q, %v", page, status, body, err)
		}
	}
	_, metrics, err := get("http://" + r.ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(context.Background(), t, "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	for _, secret := range []string{strings.SplitN(r.address, "#", 2)[1], "127.0.0.1"} {
		if strings.Contains(metrics, secret) {
			t.Errorf("the metrics hold %s", secret)
		}
	}
}
