package pair

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testRelays = []wire.Relay{{Addr: "relay.example.org:4433", Pin: wire.KeyPin{1, 2, 3}}, {Addr: "[2001:db8::1]:443"}}

// stateDir returns the path of a directory that does not exist yet.
func stateDir(t testing.TB) string { return filepath.Join(t.TempDir(), "state") }

func openHome(t testing.TB, path string) *Home {
	t.Helper()
	h, err := OpenHome(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// newHome returns a Home that can make invites.
func newHome(t testing.TB) *Home {
	t.Helper()
	h := openHome(t, stateDir(t))
	if err := h.SetRelays(testRelays); err != nil {
		t.Fatal(err)
	}
	return h
}

// add pairs a device without a conversation.
func add(t testing.TB, h *Home, name string, pin e2e.Pin) Device {
	t.Helper()
	inv := invite(t, h, name, false)
	d, err := h.redeem(secretHash(inv.secret), pin, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func invite(t testing.TB, h *Home, name string, approve bool) Invite {
	t.Helper()
	inv, err := h.NewInvite(name, 0, approve)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func names(h *Home) string {
	var all []string
	for _, d := range h.Devices() {
		all = append(all, d.Name)
	}
	return strings.Join(all, " ")
}

func wantErr(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error %q, want one with %q", err, part)
	}
}

// noSecrets fails if a file of the directory holds one of the secrets.
func noSecrets(t *testing.T, path string, secrets ...[]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		if bytes.Contains(b, s) {
			t.Errorf("%s holds a secret", filepath.Base(path))
		}
	}
}
