//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// crashEnv, if set, makes the test binary a home that takes a right away and
// kills itself meanwhile. Its value is a crashPlan.
const crashEnv = "RUN_AS_CRASHING_HOME"

// crashPlan says what the crashing home does.
type crashPlan struct {
	State, Relay, Origin string
	Off                  bool   // remote access goes off; else the device "tv" is revoked
	Step                 string // one of crashSteps
}

// crashSteps are the moments between the new file and the answer to the owner's
// command. The steps of the write itself are in TestCrashInWrite of crypto/pair.
var crashSteps = []string{
	"file",     // as soon as a look at the directory shows the new file
	"memory",   // the agent's memory has the change too
	"returned", // package pair is done, nobody was asked to end a session yet but by the agent's own watch
	"ended",    // the streams of a session are dead
	"packet 1", // instead of the first packet to the relay after that
	"packet 2",
	"packet 4",
	"link",     // a link of the session has said its goodbye
	"enforced", // all is done, but the owner's command has no answer
}

// crasher kills its process at a step.
type crasher struct {
	step    string
	armed   atomic.Bool  // the owner's command has come
	ended   atomic.Bool  // a session has ended since
	packets atomic.Int32 // sent since
}

func (c *crasher) at(step string) {
	if c.armed.Load() && step == c.step {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// Handle sees what the agent logs.
func (c *crasher) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "session ended":
		c.at("ended")
		c.ended.Store(c.armed.Load())
	case "link ended":
		c.at("link")
	}
	return nil
}

func (*crasher) Enabled(context.Context, slog.Level) bool { return true }
func (c *crasher) WithAttrs([]slog.Attr) slog.Handler     { return c }
func (c *crasher) WithGroup(string) slog.Handler          { return c }

// crashingSocket sees what the agent sends.
type crashingSocket struct {
	net.PacketConn
	*crasher
}

func (s crashingSocket) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.ended.Load() {
		s.at(fmt.Sprintf("packet %d", s.packets.Add(1)))
	}
	return s.PacketConn.WriteTo(p, to)
}

// crashingHome does what `share` does, prints two invites when it is reachable,
// and what `devices revoke tv` or `off` make it do after a line on stdin.
func crashingHome(plan string) error {
	var p crashPlan
	if err := json.Unmarshal([]byte(plan), &p); err != nil {
		return err
	}
	relay, err := wire.ParseRelay(p.Relay)
	if err != nil {
		return err
	}
	to, err := url.Parse(p.Origin)
	if err != nil {
		return err
	}
	home, err := pair.OpenHome(p.State)
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := &crasher{step: p.Step}
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: []wire.Relay{relay}, Log: slog.New(c), Socket: crashingSocket{udp, c}})
	if err != nil {
		return err
	}
	origin, err := endpoint.NewHTTPOrigin(to, nil)
	if err != nil {
		return err
	}
	go origin.Serve(context.Background(), agent.Listen())
	for _, name := range []string{"tv", "phone"} {
		inv, err := home.NewInvite(name, 0, false)
		if err != nil {
			return err
		}
		if err := errors.Join(agent.Ready(context.Background()), agent.Publish(context.Background())); err != nil {
			return err
		}
		fmt.Println(inv.Text())
	}
	if !bufio.NewScanner(os.Stdin).Scan() {
		return errors.New("nobody asked for anything")
	}

	before, err := os.Stat(filepath.Join(p.State, "home.json"))
	if err != nil {
		return err
	}
	c.armed.Store(true)
	changed := home.Changed()
	go func() {
		<-changed
		c.at("memory")
	}()
	if p.Step == "file" {
		go func() {
			for {
				now, err := os.Stat(filepath.Join(p.State, "home.json"))
				if err == nil && !os.SameFile(before, now) {
					c.at("file")
				}
			}
		}()
	}
	if p.Off {
		err = home.SetEnabled(false)
	} else {
		err = home.Revoke("tv")
	}
	c.at("returned")
	agent.Enforce()
	c.at("enforced")
	time.Sleep(stopTimeout) // packets and links take their time
	return errors.Join(err, errors.New("this step never came"))
}

// TestCrashWhileRevoking kills the home at each step of a revocation, or of
// `off`, in the middle of a film. The real `share` that is started after it on
// the same files does not let the device in: neither the `open` that still runs
// and wants to go on with its session, nor a new one.
func TestCrashWhileRevoking(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(map[bool]string{false: "revoke", true: "off"}[off], func(t *testing.T) {
			r, o := openRelay(t), startFullRate(t)
			var all []*outcast
			for _, step := range crashSteps {
				all = append(all, crashWhileRevoking(t, r, o, off, step))
			}
			for _, c := range all { // all wait for their answer at the same time
				t.Run(c.step, c.isOut)
			}
		})
	}
}

// outcast is what is there after a crash.
type outcast struct {
	step             string
	off              bool
	home             agent  // runs again
	tv, phone, again device // again has tv's state
	film             *rateFlow
}

func crashWhileRevoking(t *testing.T, r relay, o *fullRate, off bool, step string) *outcast {
	t.Helper()
	c := &outcast{step: step, off: off}
	state := newState(t)
	home, ask, invites := startCrashingHome(t, crashPlan{state, r.address, o.url, off, step})
	c.tv, c.phone = startDevice(t, newState(t), invites[0]), startDevice(t, newState(t), invites[1])
	c.tv.url, c.phone.url = c.tv.awaitURL(t), c.phone.awaitURL(t)
	c.film = o.download(t, c.tv)
	c.film.wantMuch(t, 1<<20)

	io.WriteString(ask, "\n")
	home.told = true
	if !home.awaitExit(readyTimeout) {
		t.Fatalf("step %q: the home still runs", step)
	}
	if s, ok := home.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("step %q: the home was not killed: %v", step, home)
	}
	c.home = startAgent(t, r.address, o.url, state)
	if off {
		c.home.wantSaid(t, "remote access is off")
	} else {
		c.home.firstLine(t)
	}
	c.again = startDevice(t, c.tv.state)
	return c
}

// isOut demands that the device stays out, and that the other one may come if
// it was not meant.
func (c *outcast) isOut(t *testing.T) {
	says := "revoked"
	if c.off {
		says = "remote access"
	}
	c.again.wantSaid(t, says)
	eventually(t, readyTimeout, "the open that still runs is refused", func() error {
		r := run(t, 20*time.Second, "blindlink", "status", "--state", c.tv.state).want(t, 0)
		if missing(r.stdout, []string{says}) != nil {
			return fmt.Errorf("its status is %s", r.stdout)
		}
		return nil
	})
	came := c.film.came.Load()
	if out := c.again.stdout.String(); out != "" {
		t.Errorf("the device that is out prints %q", out)
	}
	if !c.off {
		c.again.wantExit(t, readyTimeout, 1)
		wantPage(t, c.phone, pageLimit)
		if got := c.home.devices(t); len(got) != 1 || got[0] != "phone" {
			t.Errorf("the devices are %q", got)
		}
	}
	c.home.link(t, "verify", "tv").want(t, 1, "nobody")
	if n := c.film.came.Load() - came; n > 0 || c.film.wrong.Load() {
		t.Errorf("%d bytes came to a device that is out; wrong bytes: %v", n, c.film.wrong.Load())
	}
}

// startCrashingHome starts one and returns its invites.
func startCrashingHome(t *testing.T, p crashPlan) (home *process, ask io.Writer, invites []string) {
	t.Helper()
	plan, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+string(plan))
	if ask, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	home = start(t, "home at "+p.Step, cmd)
	text := home.await(t, home.stdout, "print two invites", func(text string) (string, bool) {
		return text, strings.Count(text, "\n") == 2
	})
	return home, ask, strings.Fields(text)
}
