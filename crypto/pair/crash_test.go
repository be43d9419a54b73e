package pair

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// TestCrashInWrite stops the write of a revocation after each of its steps,
// with a temporary file that is whole, cut or empty, as a power cut leaves it.
func TestCrashInWrite(t *testing.T) {
	const old, revoked = "tv phone", "tv"
	for steps := 0; ; steps++ {
		for _, left := range []string{"whole", "cut", "empty"} {
			h := newHome(t)
			add(t, h, "tv", e2e.Pin{1})
			add(t, h, "phone", e2e.Pin{2})
			next := h.state.Load().clone()
			next.revoke(1, now())
			next.Generation++
			data, err := next.encode()
			if err != nil {
				t.Fatal(err)
			}
			all := h.dir.writeSteps(homeName, data)
			if steps > len(all) {
				return
			}
			for _, step := range all[:steps] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			tmp := h.dir.file(homeName + ".tmp")
			if info, err := os.Stat(tmp); err == nil && left != "whole" {
				size := info.Size() / 2
				if left == "empty" {
					size = 0
				}
				if err := os.Truncate(tmp, size); err != nil {
					t.Fatal(err)
				}
			}
			want := old
			if steps > renameStep {
				want = revoked
			}
			h.Close() // all that it does is give the lock free, as the end of a process does
			h = openHome(t, h.dir.path)
			if got := names(h); got != want {
				t.Errorf("stopped after %d steps, temporary file %s: devices %q, want %q", steps, left, got, want)
			}
			if _, ok := h.Admit(e2e.Pin{2}); ok != (want == old) {
				t.Errorf("stopped after %d steps: the second device is admitted: %v", steps, ok)
			}
			// The state is usable, and the next write leaves nothing behind.
			if err := h.Rename("tv", "television"); err != nil {
				t.Errorf("stopped after %d steps: %v", steps, err)
			}
			if _, err := os.Stat(tmp); err == nil {
				t.Errorf("stopped after %d steps: the temporary file is still there", steps)
			}
		}
	}
}

// TestCrashAfterRevoke stops the write after a revocation at each of its
// steps: what was revoked stays so.
func TestCrashAfterRevoke(t *testing.T) {
	h := newHome(t)
	path := h.dir.path
	for steps := range h.dir.writeSteps(homeName, nil) {
		name := fmt.Sprintf("d%d", steps)
		pin := e2e.Pin{byte(steps + 1)}
		add(t, h, name, pin)
		if err := h.Revoke(name); err != nil {
			t.Fatal(err)
		}
		next := h.state.Load().clone()
		next.Generation++
		data, _ := next.encode()
		for _, step := range h.dir.writeSteps(homeName, data)[:steps+1] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		h.Close()
		h = openHome(t, path)
		if _, ok := h.Admit(pin); ok {
			t.Errorf("stopped after %d steps of a later write: a revoked device is back", steps+1)
		}
	}
}

// TestFailedWrite makes a write impossible: the method fails; memory says what
// the file says, but for what takes rights away, which holds at once; and all is
// well once writing is possible again.
func TestFailedWrite(t *testing.T) {
	h := newHome(t)
	add(t, h, "tv", e2e.Pin{1})
	tmp := h.dir.file(homeName + ".tmp")
	if err := os.MkdirAll(tmp+"/full", 0o700); err != nil { // cannot be removed, nor created
		t.Fatal(err)
	}
	changed := h.Changed()
	wantErr(t, h.Rename("tv", "box"), "write "+h.dir.file(homeName))
	if names(h) != "tv" {
		t.Error("memory is ahead of the file")
	}
	select {
	case <-changed:
		t.Error("told of a change that failed")
	default:
	}
	wantErr(t, h.Revoke("tv"), "repeat it")
	if _, ok := h.Admit(e2e.Pin{1}); ok {
		t.Error("a revoked device is admitted because the disk is full")
	}
	wantErr(t, h.SetEnabled(false), "repeat it")
	if h.Enabled() {
		t.Error("remote access is on because the disk is full")
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told of the revocation")
	}
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Revoke("tv"), h.SetEnabled(false)); err != nil || names(h) != "" {
		t.Errorf("afterwards: %v, devices %q", err, names(h))
	}
	path := h.dir.file("")
	h.Close()
	h = openHome(t, filepath.Clean(path))
	if names(h) != "" || h.Enabled() {
		t.Errorf("stored are devices %q, remote access %v", names(h), h.Enabled())
	}
}

// TestCrashInFirstStart interrupts the first start before each of its files.
func TestCrashInFirstStart(t *testing.T) {
	files := []string{homeName, identityName, routeName, tokenName, homeName}
	for done := range files {
		d, err := openDir(stateDir(t))
		if err != nil {
			t.Fatal(err)
		}
		h := &Home{dir: d}
		for i, name := range files[:done] {
			if i == 0 {
				s := &homeState{Version: homeVersion, Enabled: true, Server: "server"}
				b, _ := s.encode()
				_, err = d.write(name, b)
			} else {
				err = d.createKey(name)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		os.WriteFile(h.dir.file(files[done]+".tmp"), []byte("{"), 0o600)
		d.root.Close()
		h = openHome(t, d.path)
		pin := h.Pin()
		h.Close()
		if h = openHome(t, d.path); h.Pin() != pin {
			t.Errorf("interrupted after %d files: the identity changed with the second start", done)
		}
	}
}

const crashEnv = "BLINDRELAY_PAIR_CRASH_DIR"

// TestCrashChild is the victim of TestKill: it pairs and revokes devices and
// says after each that it is done.
func TestCrashChild(t *testing.T) {
	path := os.Getenv(crashEnv)
	if path == "" {
		t.Skip("runs as a child of TestKill")
	}
	h, err := OpenHome(path)
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	for n := h.state.Load().Generation << 16; ; n++ {
		inv, err := h.NewInvite("", 0, false)
		if err == nil {
			_, err = h.redeem(secretHash(inv.secret), numbered(n), fmt.Sprintf("d%d", n))
		}
		fmt.Println("added", n, err)
		if n%2 == 1 {
			fmt.Println("revoked", n, h.Revoke(fmt.Sprintf("d%d", n)))
		}
	}
}

func numbered(n uint64) (pin e2e.Pin) {
	binary.BigEndian.PutUint64(pin[:], n+1)
	return pin
}

// TestKill kills a process that changes the state, at random moments, and
// holds the state against what the process had said.
func TestKill(t *testing.T) {
	h := newHome(t)
	path := h.dir.path
	h.Close()
	allowed := map[uint64]bool{}
	for range 12 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
		cmd.Env = append(os.Environ(), crashEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var what, result string
			var n uint64
			if _, err := fmt.Sscan(lines.Text(), &what, &n, &result); err != nil || result != "<nil>" {
				if !strings.HasPrefix(lines.Text(), "added") && !strings.HasPrefix(lines.Text(), "revoked") {
					t.Fatalf("the child says %q", lines.Text())
				}
				continue // the line was cut by the kill
			}
			allowed[n] = what == "added"
			if kill == nil { // the first line: it is at work
				kill = time.AfterFunc(rand.N(30*time.Millisecond), func() { cmd.Process.Kill() })
			}
		}
		cmd.Wait()
		if kill == nil {
			t.Fatal("the child did nothing")
		}
		kill.Stop()
		h := openHome(t, path)
		for n, want := range allowed {
			if _, got := h.Admit(numbered(n)); !want && got {
				t.Errorf("device %d was revoked and is back", n)
			} else if want && !got && n%2 == 0 { // an odd one may be revoked unheard
				t.Errorf("device %d was paired and is gone", n)
			}
		}
		h.Close()
	}
	if len(allowed) < 12 {
		t.Errorf("only %d devices were ever paired", len(allowed))
	}
}
