package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// newAway makes the state of a device that is paired with the named servers.
func newAway(t *testing.T, servers ...string) (dir string) {
	t.Helper()
	dir = newDir(t)
	away, err := pair.OpenAway(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	for i, name := range servers {
		if _, err := away.Add(pair.Server{
			Name: name, Pin: e2e.Pin{byte(i)}, Device: "tv", Relays: []wire.Relay{{Addr: "127.0.0.1:9"}}, Paired: time.Now(),
		}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// invites are made at a home that nobody reaches.
func anInvite(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(owned{newHome(t)}.run(t, "invite").want(t, 0).stdout)
}

func TestOpenRefusals(t *testing.T) {
	good := anInvite(t)
	typo := good[:40] + strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return 'A'
	}, good[40:41]) + good[41:]
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	long := strings.Repeat("SECRET", 30)
	for _, tc := range []struct {
		name, stdin string
		env, args   []string
		words       []string
	}{
		{name: "typo", args: []string{typo}, words: []string{"typo"}},
		{name: "typo on stdin", stdin: typo + "\n", args: []string{"-"}, words: []string{"typo"}},
		{name: "nothing on stdin", args: []string{"-"}, words: []string{"begins with BR1"}},
		{name: "typo in the environment", env: []string{"BLINDLINK_INVITE=" + typo}, words: []string{"typo"}},
		{name: "no invite", args: []string{long}, words: []string{"not an invite"}},
		{name: "no server", words: []string{"not paired", "blindlink open INVITE"}},
		{name: "unknown server", args: []string{"attic"}, words: []string{"not paired"}},
		{name: "port in use", args: []string{good, "--listen", taken.Addr().String()}, words: []string{taken.Addr().String(), "in use", "--listen"}},
		{name: "no such address", args: []string{good, "--listen", "192.0.2.1:1"}, words: []string{"192.0.2.1:1", "--listen"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"open", "--state", newDir(t)}, tc.args...)
			if !strings.Contains(strings.Join(args, " "), "--listen") {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			r := blindlink(t, tc.stdin, tc.env, args...).want(t, 1, tc.words...)
			if r.stdout != "" || strings.Contains(r.stderr, typo) || strings.Contains(r.stderr, long) {
				t.Errorf("a secret or a result was printed: %+v", r)
			}
		})
	}
	several := newAway(t, "attic", "cellar")
	blindlink(t, "", nil, "open", "--state", several, "--listen", "127.0.0.1:0").want(t, 1, "attic", "cellar")
	blindlink(t, "", nil, "open", "--state", newHome(t), "--listen", "127.0.0.1:0").want(t, 1, "share", "--state")
	blindlink(t, "", nil, "off", "--state", several).want(t, 1, "open", "--state")
}

// TestOpenUnreachable keeps trying, answers status, and ends well.
func TestOpenUnreachable(t *testing.T) {
	dir := newAway(t, "attic", "cellar")
	p := start(t, nil, "open", "attic", "--listen", "0.0.0.0:0", "--state", dir)
	p.stderr.await(t, "OPEN TO THE NETWORK")
	awaitSocket(t, dir)
	var v overview
	r := blindlink(t, "", nil, "status", "--json", "--state", dir).want(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if v.Share != nil || len(v.Open) != 1 || v.Open[0].Server != "attic" || v.Open[0].State != "connecting" || len(v.Servers) != 2 {
		t.Errorf("status %+v", v)
	}
	if text := blindlink(t, "", nil, "status", "--state", dir).want(t, 0).stdout; !strings.Contains(text, "attic at http://127.0.0.1:") {
		t.Errorf("status %s", text)
	}
	p.stop(t)
	if out := p.stdout.String(); out != "" {
		t.Errorf("an unreachable server is announced: %q", out)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if isOpenSocket(f.Name()) {
			t.Errorf("%s is left behind", f.Name())
		}
	}
}

// awaitSocket waits for an `open` to answer status.
func awaitSocket(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if isOpenSocket(f.Name()) {
				return
			}
		}
	}
	t.Fatal("no status socket appears")
}

// TestInviteIsHidden looks for an invite in the list of processes.
func TestInviteIsHidden(t *testing.T) {
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		t.Skip("this system has no /proc")
	}
	inv := anInvite(t)
	p := start(t, nil, "open", inv, "--listen", "0.0.0.0:0", "--state", newDir(t))
	p.stderr.await(t, "OPEN TO THE NETWORK") // so it has read its arguments
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), inv[4:]) || !strings.Contains(string(b), "--listen") {
		t.Errorf("the list of processes shows %q", b)
	}
	p.cmd.Process.Kill()
	<-p.ended
}

func TestLocalURL(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8096": "http://127.0.0.1:8096/",
		"0.0.0.0:80":     "http://127.0.0.1:80/",
		"[::]:80":        "http://127.0.0.1:80/",
		"[::1]:80":       "http://[::1]:80/",
		"192.0.2.7:1":    "http://192.0.2.7:1/",
	} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := localURL(a); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}
