package main

import (
	"crypto/ed25519"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// newHome makes the state of a server with the named devices.
func newHome(t *testing.T, devices ...string) (dir string) {
	t.Helper()
	dir = newDir(t)
	home, err := pair.OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := home.SetRelays([]wire.Relay{{Addr: "127.0.0.1:9"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range devices {
		addDevice(t, home, name)
	}
	return dir
}

func addDevice(t *testing.T, home *pair.Home, name string) {
	t.Helper()
	inv, err := home.NewInvite(name, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	key, _, _ := ed25519.GenerateKey(nil)
	pin, err := e2e.PinOf(key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1) // one value, by the goroutine below
	go func() {
		_, err := home.Serve(t.Context(), b, pin, make([]byte, 32), nil)
		served <- err
	}()
	if _, err := pair.Request(t.Context(), a, inv, name); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

// owned are the commands of an owner on one state directory.
type owned struct{ dir string }

func (o owned) run(t *testing.T, args ...string) result {
	t.Helper()
	return blindlink(t, "", nil, append(args, "--state", o.dir)...)
}

func (o owned) names(t *testing.T) string {
	t.Helper()
	r := o.run(t, "devices", "--json").want(t, 0)
	var list []device
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || list == nil {
		t.Fatalf("%v: %q", err, r.stdout)
	}
	var names []string
	for _, d := range list {
		if _, err := e2e.ParsePin(d.Pin); err != nil || d.Added.IsZero() {
			t.Errorf("device %+v: %v", d, err)
		}
		names = append(names, d.Name)
	}
	return strings.Join(names, ",")
}

func (o owned) status(t *testing.T) shareStatus {
	t.Helper()
	var v overview
	r := o.run(t, "status", "--json").want(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Share == nil {
		t.Fatalf("%v: %q", err, r.stdout)
	}
	return *v.Share
}

func (o owned) invite(t *testing.T, args ...string) pair.Invite {
	t.Helper()
	r := o.run(t, append([]string{"invite"}, args...)...).want(t, 0, "blindlink open")
	if strings.Count(r.stdout, "\n") != 1 {
		t.Errorf("stdout has to be the invite alone: %q", r.stdout)
	}
	inv, err := pair.ParseInvite(r.stdout)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// exercise does what owners do. It must be the same with and without share.
func (o owned) exercise(t *testing.T, running bool) {
	if got := o.names(t); got != "tv,phone" {
		t.Errorf("devices %q", got)
	}
	if r := o.run(t, "devices").want(t, 0); !strings.Contains(r.stdout, "NAME") || !strings.Contains(r.stdout, "phone") {
		t.Errorf("table: %s", r.stdout)
	}
	o.run(t, "devices", "rename", "tv", "living room").want(t, 0)
	o.run(t, "devices", "rename", "tv", "x").want(t, 1, `"tv"`, "devices list")
	o.run(t, "devices", "revoke", "phone").want(t, 0)
	o.run(t, "devices", "revoke", "phone").want(t, 1, `"phone"`)
	if got := o.names(t); got != "living room" {
		t.Errorf("devices %q", got)
	}
	inv := o.invite(t, "--ttl", "2h", "--name", "pad")
	if left := time.Until(inv.Expires); left < 119*time.Minute || left > 2*time.Hour || inv.Approve {
		t.Errorf("invite %+v", inv)
	}
	o.run(t, "invite", "--ttl", "9999h").want(t, 1, "invite")

	for range 2 { // twice does no harm
		o.run(t, "off").want(t, 0)
	}
	s := o.status(t)
	if s.RemoteAccess || s.Running != running || s.Devices != 1 || len(s.Route) != 26 {
		t.Errorf("status %+v", s)
	}
	o.run(t, "invite").want(t, 1, "blindlink on")
	o.run(t, "on").want(t, 0)
	if !o.status(t).RemoteAccess {
		t.Error("still off")
	}
	want := "not running"
	if running {
		want = "running\n"
	}
	if r := o.run(t, "status").want(t, 0); !strings.Contains(r.stdout, want) {
		t.Errorf("status does not say %q: %s", want, r.stdout)
	}
}

func TestOwnerOnFiles(t *testing.T) {
	o := owned{newHome(t, "tv", "phone")}
	o.exercise(t, false)
	o.run(t, "invite", "--approve").want(t, 1, "share")
	if r := o.run(t, "invite").want(t, 0); !strings.Contains(r.stderr, "not running") {
		t.Errorf("no word that share is not running: %s", r.stderr)
	}
}

func TestOwnerOfRunningShare(t *testing.T) {
	o := owned{newHome(t, "tv", "phone")}
	share := []string{"share", "--relay", "127.0.0.1:9", "--to", "http://127.0.0.1:9", "--state", o.dir}
	p := start(t, []string{"BLINDLINK_LOG_FORMAT=json"}, share...)
	p.stderr.await(t, `"msg":"connecting"`)
	if info, err := os.Stat(filepath.Join(o.dir, controlName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	o.exercise(t, true)
	blindlink(t, "", nil, share...).want(t, 1, "already running", o.dir)

	t.Run("approval without a device", func(t *testing.T) {
		o.run(t, "invite", "--approve", "--ttl", "1s").want(t, 1, "expired")
		w := start(t, nil, "invite", "--approve", "--state", o.dir)
		w.stdout.await(t, "BR1:")
		o.run(t, "invite", "--approve").want(t, 1, "another")
		w.cmd.Process.Signal(os.Interrupt)
		if err := <-w.ended; err == nil {
			t.Error("nobody came, and that is no error")
		}
		w.stderr.await(t, "worth nothing")
	})
	p.stop(t)
	if out := p.stdout.String(); out != "" {
		t.Errorf("without a relay share says %q", out)
	}
	if _, err := os.Stat(filepath.Join(o.dir, controlName)); err == nil {
		t.Error("share left its socket behind")
	}
}

// TestCrashedShare leaves a socket that nobody listens on.
func TestCrashedShare(t *testing.T) {
	o := owned{newHome(t, "tv")}
	share := []string{"share", "--relay", "127.0.0.1:9", "--to", "tcp://127.0.0.1:9", "--state", o.dir}
	p := start(t, nil, share...)
	p.stderr.await(t, "connecting")
	p.cmd.Process.Kill()
	<-p.ended
	if o.names(t) != "tv" || o.status(t).Running {
		t.Error("the files are not used after a crash")
	}
	o.run(t, "off").want(t, 0)
	p = start(t, nil, share...)
	p.stderr.await(t, "blindlink on") // off survives
	if s := o.status(t); !s.Running || s.RemoteAccess {
		t.Errorf("status %+v", s)
	}
	p.stop(t)
}

// TestBrokenReceipts: what relays have said is no reason not to start.
func TestBrokenReceipts(t *testing.T) {
	o := owned{newHome(t)}
	if err := os.WriteFile(filepath.Join(o.dir, "receipts.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "share", "--relay", "127.0.0.1:9", "--to", "tcp://127.0.0.1:9", "--state", o.dir)
	p.stderr.await(t, "begun anew")
	p.stderr.await(t, "connecting")
	if !o.status(t).Running {
		t.Error("share does not run")
	}
	p.stop(t)
}
