package pair

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func TestHomeFirstStart(t *testing.T) {
	path := stateDir(t)
	h := openHome(t, path)
	if len(h.Devices()) != 0 || len(h.Tokens()) != 0 || !h.Enabled() || h.Server() == "" {
		t.Errorf("a new home lists %v, tokens %v, enabled %v, server %q", h.Devices(), h.Tokens(), h.Enabled(), h.Server())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	entries, _ := os.ReadDir(path)
	var files []string
	for _, e := range entries {
		info, _ := e.Info()
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		files = append(files, e.Name())
	}
	if want := []string{"home.json", "identity.key", "lock", "route.key", "token.key"}; !slices.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	pin, route, tok := h.Pin(), h.Route(), h.Token(e2e.Pin{1})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	wantErr(t, h.SetEnabled(false), "closed")
	h = openHome(t, path)
	if h.Pin() != pin || h.Route() != route || h.Token(e2e.Pin{1}) != tok {
		t.Error("the keys changed with a restart")
	}
	if got, err := e2e.PinOf(h.Identity().Public()); err != nil || got != pin {
		t.Errorf("pin %v, %v", got, err)
	}
	if der, err := spki(h.RouteKey()); err != nil || wire.RouteOf(der) != route {
		t.Errorf("route: %v", err)
	}
	if reflect.DeepEqual(h.RouteKey(), h.Identity()) {
		t.Error("one key serves two purposes")
	}
}

func TestHomeKeepsEverything(t *testing.T) {
	path := stateDir(t)
	h := openHome(t, path)
	if err := h.SetRelays(testRelays); err != nil {
		t.Fatal(err)
	}
	add(t, h, "tv", e2e.Pin{1})
	add(t, h, "phone", e2e.Pin{2})
	if err := h.MarkSeen(e2e.Pin{2}); err != nil {
		t.Fatal(err)
	}
	if err := h.Rename("TV", "television"); err != nil {
		t.Fatal(err)
	}
	invite(t, h, "next", true)
	devices, tokens := h.Devices(), h.Tokens()
	if len(tokens) != 3 || tokens[0] != h.Token(e2e.Pin{1}).Hash() {
		t.Errorf("%d tokens", len(tokens))
	}
	generation := h.state.Load().Generation
	if generation != 9 { // complete, relays, 2 x (invite, pair), seen, rename, invite
		t.Errorf("generation %d, want 9", generation)
	}
	h.Close()
	h = openHome(t, path)
	if !reflect.DeepEqual(h.Devices(), devices) || !slices.Equal(h.Tokens(), tokens) || !slices.Equal(h.Relays(), testRelays) {
		t.Errorf("after a restart: %v, want %v", h.Devices(), devices)
	}
	if h.state.Load().Generation != generation {
		t.Error("a restart alone wrote the state")
	}
}

func TestHomeInUse(t *testing.T) {
	path := stateDir(t)
	openHome(t, path)
	if _, err := OpenHome(path); !errors.Is(err, ErrInUse) {
		t.Errorf("%v, want ErrInUse", err)
	}
}

func TestHomeWaitsForAShortHolder(t *testing.T) {
	path := stateDir(t)
	h := openHome(t, path)
	time.AfterFunc(50*time.Millisecond, func() { h.Close() })
	openHome(t, path)
}

// breakage spoils a closed state directory; the message must have each part.
type breakage struct {
	name  string
	spoil func(t *testing.T, dir string) error
	want  string
}

func breakages(state, key string) []breakage {
	join := filepath.Join
	write := func(name, text string) func(*testing.T, string) error {
		return func(_ *testing.T, d string) error { return os.WriteFile(join(d, name), []byte(text), 0o600) }
	}
	edit := func(name, old, new string) func(*testing.T, string) error {
		return func(t *testing.T, d string) error {
			b, err := os.ReadFile(join(d, name))
			if !bytes.Contains(b, []byte(old)) {
				t.Fatalf("%s has no %q", name, old)
			}
			return errors.Join(err, os.WriteFile(join(d, name), bytes.Replace(b, []byte(old), []byte(new), 1), 0o600))
		}
	}
	relink := func(name string) func(*testing.T, string) error {
		return func(_ *testing.T, d string) error {
			return errors.Join(os.Rename(join(d, name), join(d, "elsewhere")), os.Symlink("elsewhere", join(d, name)))
		}
	}
	cut := func(name string) func(*testing.T, string) error {
		return func(_ *testing.T, d string) error {
			info, err := os.Stat(join(d, name))
			return errors.Join(err, os.Truncate(join(d, name), info.Size()/2))
		}
	}
	return []breakage{
		{"directory open to the group", func(_ *testing.T, d string) error { return os.Chmod(d, 0o750) }, "run chmod 700"},
		{"directory open to all", func(_ *testing.T, d string) error { return os.Chmod(d, 0o701) }, "run chmod 700"},
		{"directory of another user", func(_ *testing.T, d string) error { return os.Chown(d, 12345, 12345) }, "belongs to another user"},
		{"state open to the group", func(_ *testing.T, d string) error { return os.Chmod(join(d, state), 0o640) }, "run chmod 600"},
		{"key open to all", func(_ *testing.T, d string) error { return os.Chmod(join(d, key), 0o604) }, "run chmod 600"},
		{"lock open to all", func(_ *testing.T, d string) error { return os.Chmod(join(d, lockName), 0o666) }, "run chmod 600"},
		{"state of another user", func(_ *testing.T, d string) error { return os.Chown(join(d, state), 12345, 0) }, "belongs to another user"},
		{"state is a link", relink(state), "not a regular file"},
		{"key is a link", relink(key), "not a regular file"},
		{"lock is a link", relink(lockName), "not a regular file"},
		{"state is a directory", func(_ *testing.T, d string) error {
			return errors.Join(os.Remove(join(d, state)), os.Mkdir(join(d, state), 0o700))
		}, "not a regular file"},
		{"state is missing", func(_ *testing.T, d string) error { return os.Remove(join(d, state)) }, "is missing while"},
		{"key is missing", func(_ *testing.T, d string) error { return os.Remove(join(d, key)) }, "is missing"},
		{"state is empty", write(state, ""), "not whole JSON"},
		{"state is cut", cut(state), "not whole JSON"},
		{"state is null", write(state, "null"), "version 0"},
		{"state goes on", func(t *testing.T, d string) error {
			f, err := os.OpenFile(join(d, state), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("{}")
			}
			return errors.Join(err, f.Close())
		}, "not whole JSON"},
		{"state is from a newer version", edit(state, `"version": 1`, `"version": 2, "new": true`), "update blindlink"},
		{"state has an unknown field", edit(state, `"generation"`, `"unknown": 1, "generation"`), "unknown"},
		{"state is too long", write(state, strings.Repeat(" ", maxState+1)), "longer than"},
		{"key is cut", cut(key), "not one PEM block"},
		{"key is empty", write(key, ""), "not one PEM block"},
		{"key is garbage inside", write(key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "damaged"},
		{"key is followed by another", func(_ *testing.T, d string) error {
			b, err := os.ReadFile(join(d, key))
			return errors.Join(err, os.WriteFile(join(d, key), append(b, b...), 0o600))
		}, "not one PEM block"},
		{"key is too long", write(key, strings.Repeat("A", maxKey+1)), "longer than"},
	}
}

func testBreakages(t *testing.T, cases []breakage, open func(dir string) (close func() error, err error)) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			path := stateDir(t)
			closeState, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			closeState()
			if err := tc.spoil(t, path); errors.Is(err, os.ErrPermission) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			closeState, err = open(path)
			if err == nil {
				closeState()
			}
			wantErr(t, err, tc.want)
		})
	}
}

func TestHomeRefuses(t *testing.T) {
	open := func(path string) (func() error, error) {
		h, err := OpenHome(path)
		if err != nil {
			return nil, err
		}
		if len(h.Devices()) == 0 { // the first time: something to spoil
			if err := h.SetRelays(testRelays); err != nil {
				t.Fatal(err)
			}
			add(t, h, "tv", e2e.Pin{1})
			add(t, h, "phone", e2e.Pin{2})
			add(t, h, "old", e2e.Pin{3})
			if err := h.Revoke("old"); err != nil {
				t.Fatal(err)
			}
			invite(t, h, "next", false)
		}
		return h.Close, nil
	}
	edit := func(old, new string) func(*testing.T, string) error {
		return func(t *testing.T, d string) error {
			path := filepath.Join(d, homeName)
			b, err := os.ReadFile(path)
			if !strings.Contains(string(b), old) {
				t.Fatalf("no %q in %s", old, b)
			}
			return errors.Join(err, os.WriteFile(path, []byte(strings.Replace(string(b), old, new, 1)), 0o600))
		}
	}
	cases := breakages(homeName, identityName)
	for _, tc := range breakages(homeName, routeName) {
		if strings.HasPrefix(tc.name, "key ") {
			tc.name = "route " + tc.name
			cases = append(cases, tc)
		}
	}
	cases = append(cases,
		breakage{"token key is missing", func(_ *testing.T, d string) error { return os.Remove(filepath.Join(d, tokenName)) }, "is missing"},
		breakage{"token key is short", func(_ *testing.T, d string) error {
			return os.WriteFile(filepath.Join(d, tokenName), []byte("-----BEGIN BLINDRELAY TOKEN KEY-----\nAAAA\n-----END BLINDRELAY TOKEN KEY-----\n"), 0o600)
		}, "32 bytes"},
		breakage{"two devices of a name", edit(`"phone"`, `"TV"`), "twice"},
		breakage{"two devices of a pin", edit(e2e.Pin{2}.String(), e2e.Pin{1}.String()), "twice"},
		breakage{"allowed and revoked", edit(e2e.Pin{3}.String(), e2e.Pin{1}.String()), "twice"},
		breakage{"a device without pin", edit(e2e.Pin{2}.String(), "AAAA"), "not a pin"},
		breakage{"a device with a nasty name", edit(`"phone"`, `"\u001b[2J"`), "do not print"},
		breakage{"an invite with a nasty name", edit(`"next"`, `"\u202e"`), "do not print"},
		breakage{"a revoked device without name", edit(`"old"`, `""`), "empty"},
		breakage{"a relay without port", edit(`relay.example.org:4433`, `relay.example.org`), "HOST:PORT"},
		breakage{"a state that claims to be new", func(t *testing.T, d string) error {
			b, err := os.ReadFile(filepath.Join(d, homeName))
			b = regexp.MustCompile(`"generation": \d+`).ReplaceAll(b, []byte(`"generation": 0`))
			return errors.Join(err, os.WriteFile(filepath.Join(d, homeName), b, 0o600))
		}, "has no generation"},
		breakage{"a server without name", edit(`"server": "`, `"server": " `), "server:"},
	)
	testBreakages(t, cases, open)
}

func TestStateDirectoryIsALink(t *testing.T) {
	path := stateDir(t)
	openHome(t, path).Close()
	link := path + "-link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	openHome(t, link).Close() // as systemd makes it
	if err := os.Lchown(link, 12345, 12345); err != nil {
		t.Skip(err)
	}
	_, err := OpenHome(link)
	wantErr(t, err, "another user made")
}

func TestNewInvite(t *testing.T) {
	h := openHome(t, stateDir(t))
	_, err := h.NewInvite("tv", 0, false)
	wantErr(t, err, "blindlink share --relay")
	for _, relays := range [][]wire.Relay{nil, make([]wire.Relay, 4), {{Addr: "a"}}} {
		if h.SetRelays(relays) == nil {
			t.Errorf("relays %v are stored", relays)
		}
	}
	if err := h.SetRelays(testRelays); err != nil {
		t.Fatal(err)
	}
	for _, ttl := range []time.Duration{-time.Hour, time.Millisecond, maxTTL + 1} {
		_, err = h.NewInvite("tv", ttl, false)
		wantErr(t, err, "cannot be good for")
	}
	for _, name := range []string{" tv", "t\nv", "t\u202ev", strings.Repeat("x", 65), "\xff"} {
		_, err = h.NewInvite(name, 0, false)
		wantErr(t, err, "name")
	}
	start := time.Now()
	inv := invite(t, h, "tv", true)
	if left := inv.Expires.Sub(start); left > time.Hour || left < time.Hour-2*time.Second {
		t.Errorf("good for %v, want an hour", left)
	}
	if inv.Server != h.Pin() || inv.Route != h.Route() || !slices.Equal(inv.Relays, testRelays) || !inv.Approve {
		t.Errorf("invite %#v", inv)
	}
	if got, err := ParseInvite(inv.Text()); err != nil || !reflect.DeepEqual(got, inv) {
		t.Errorf("parsed back: %v", err)
	}
	if got := h.Tokens(); !slices.Equal(got, []wire.TokenHash{inv.Token().Hash()}) {
		t.Errorf("tokens %v", got)
	}
	for range maxInvites - 1 {
		if invite(t, h, "", false).secret == inv.secret {
			t.Fatal("two invites share a secret")
		}
	}
	_, err = h.NewInvite("", 0, false)
	wantErr(t, err, "16 invites are open")
	noSecrets(t, h.dir.file(homeName), inv.secret[:], []byte(e2e.Pin(append(inv.secret[:], make([]byte, 16)...)).String()[:20]))
	if err := h.SetEnabled(false); err != nil {
		t.Fatal(err)
	}
	_, err = h.NewInvite("", 0, false)
	wantErr(t, err, "blindlink on")
}

func TestInvitesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		short, err := h.NewInvite("short", time.Minute, false)
		if err != nil {
			t.Fatal(err)
		}
		long := invite(t, h, "long", false)
		time.Sleep(time.Minute - time.Nanosecond)
		if len(h.Tokens()) != 2 {
			t.Errorf("%d tokens before the expiry", len(h.Tokens()))
		}
		time.Sleep(time.Nanosecond)
		if got := h.Tokens(); !slices.Equal(got, []wire.TokenHash{long.Token().Hash()}) {
			t.Errorf("%d tokens after the expiry", len(got))
		}
		if _, err := h.redeem(secretHash(short.secret), e2e.Pin{1}, "x"); err == nil {
			t.Error("an expired invite paired a device")
		}
		for range maxInvites - 1 { // the expired one does not count
			invite(t, h, "", false)
		}
		if n := len(h.state.Load().Invites); n != maxInvites {
			t.Errorf("%d invites are stored: the expired one was not swept", n)
		}
	})
}

func TestNames(t *testing.T) {
	h := newHome(t)
	for i, name := range []string{"tv", "TV", "tv", "tv-2"} {
		add(t, h, name, e2e.Pin{byte(i + 1)})
	}
	if got, want := names(h), "tv TV-2 tv-3 tv-2-2"; got != want {
		t.Errorf("names %q, want %q", got, want)
	}
	long := strings.Repeat("ä", 32)
	add(t, h, long, e2e.Pin{10})
	if d := add(t, h, long, e2e.Pin{11}); d.Name != strings.Repeat("ä", 31)+"-2" {
		t.Errorf("the second long name is %q", d.Name)
	}
	wantErr(t, h.Rename("nobody", "x"), "no device is named")
	wantErr(t, h.Rename("tv", "TV-2"), "another device")
	wantErr(t, h.Rename("tv", ""), "empty")
	if err := h.Rename("tv", "Tv"); err != nil { // its own name in another case
		t.Error(err)
	}
	for in, want := range map[string]string{
		"": "device", " \x1b[2J\n": "[2J", "\u202e": "device", "a\u00a0b": "ab", "living room ": "living room",
		strings.Repeat("x", 63) + "ä": strings.Repeat("x", 63), "\xff\xfe": "device",
	} {
		if got := cleanName(in, "device"); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRevoke(t *testing.T) {
	path := stateDir(t)
	h := openHome(t, path)
	if err := h.SetRelays(testRelays); err != nil {
		t.Fatal(err)
	}
	pin := e2e.Pin{7}
	add(t, h, "tv", pin)
	add(t, h, "phone", e2e.Pin{8})
	forTV := invite(t, h, "tv", false)
	before := invite(t, h, "", false)
	changed := h.Changed()
	if err := h.Revoke("TV"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	shut := func(h *Home) {
		t.Helper()
		if d, ok := h.Admit(pin); ok {
			t.Errorf("admitted %v", d)
		}
		if slices.Contains(h.Tokens(), h.Token(pin).Hash()) || slices.Contains(h.Tokens(), forTV.Token().Hash()) {
			t.Error("its token, or that of an invite of its name, is still registered")
		}
		if names(h) != "phone" {
			t.Errorf("devices %q", names(h))
		}
		if err := h.MarkSeen(pin); err != nil {
			t.Error(err)
		}
	}
	shut(h)
	if _, err := h.redeem(secretHash(forTV.secret), pin, "tv"); err == nil {
		t.Error("an invite from before the revocation brought it back")
	}
	_, err := h.redeem(secretHash(before.secret), pin, "tv")
	wantErr(t, err, "after the invite was made")
	wantErr(t, h.Revoke("tv"), "no device is named")
	h.Close()
	h = openHome(t, path)
	shut(h)
	if got := h.state.Load().Revoked; len(got) != 1 || got[0].Name != "tv" || got[0].Pin != pinText(pin) {
		t.Errorf("tombstones %v", got)
	}
	if _, err := h.redeem(secretHash(before.secret), pin, "tv"); err == nil {
		t.Error("an invite from before the revocation brought it back after a restart")
	}
	if _, err := h.redeem(secretHash(before.secret), e2e.Pin{9}, "other"); err != nil {
		t.Errorf("the refusal cost another device its invite: %v", err)
	}
	if err := h.Revoke("other"); err != nil {
		t.Fatal(err)
	}
	add(t, h, "tv", pin) // a new invite brings it back
	if _, ok := h.Admit(pin); !ok || len(h.state.Load().Revoked) != 1 {
		t.Errorf("paired again: admitted %v, tombstones %v", ok, h.state.Load().Revoked)
	}
	inv := invite(t, h, "new", false)
	if err := h.Revoke("new"); err != nil { // no device has the name yet
		t.Error(err)
	}
	if slices.Contains(h.Tokens(), inv.Token().Hash()) {
		t.Error("the invite is still open")
	}
}

func TestOff(t *testing.T) {
	path := stateDir(t)
	h := openHome(t, path)
	if err := h.SetRelays(testRelays); err != nil {
		t.Fatal(err)
	}
	add(t, h, "tv", e2e.Pin{1})
	inv := invite(t, h, "x", false)
	if err := h.SetEnabled(false); err != nil {
		t.Fatal(err)
	}
	h.Close()
	h = openHome(t, path)
	if _, ok := h.Admit(e2e.Pin{1}); ok || len(h.Tokens()) != 0 || h.Enabled() {
		t.Error("something is open while remote access is off")
	}
	if _, err := h.redeem(secretHash(inv.secret), e2e.Pin{2}, "x"); err == nil {
		t.Error("a device was paired while remote access is off")
	}
	if err := h.SetEnabled(true); err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Admit(e2e.Pin{1}); !ok || len(h.Tokens()) != 1 {
		t.Error("turning on again brought back something else than the device")
	}
	if _, err := h.redeem(secretHash(inv.secret), e2e.Pin{2}, "x"); err == nil {
		t.Error("an invite from before it was off is good")
	}
}

func TestMarkSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t)
		add(t, h, "tv", e2e.Pin{1})
		writes := func() uint64 { return h.state.Load().Generation }
		before := writes()
		for range 300 {
			if err := h.MarkSeen(e2e.Pin{1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if got := writes() - before; got != 5 {
			t.Errorf("%d writes in five hours, want 5", got)
		}
		if age := time.Since(h.Devices()[0].Seen); age > seenStep {
			t.Errorf("seen %v ago", age)
		}
	})
}

func TestBounds(t *testing.T) {
	h := newHome(t)
	s := h.state.Load().clone()
	for i := range maxDevices {
		s.Devices = append(s.Devices, savedDevice{Name: fmt.Sprintf("%d%s", i, strings.Repeat("x", 59)), Pin: pinText{1, byte(i), byte(i >> 8)}, Added: now(), Seen: now()})
	}
	for i := range maxRevoked {
		s.Revoked = append(s.Revoked, savedRevoked{Name: fmt.Sprintf("%d%s", i, strings.Repeat("x", 59)), Pin: pinText{2, byte(i), byte(i >> 8)}, Revoked: now()})
	}
	b, err := s.encode()
	if err != nil || len(b) > maxState {
		t.Fatalf("a full state has %d bytes, %v", len(b), err)
	}
	h.state.Store(s)
	_, err = h.NewInvite("x", 0, false)
	wantErr(t, err, "984 devices are paired")
	if err := h.Revoke(s.Devices[0].Name); err != nil {
		t.Fatal(err)
	}
	if got := h.state.Load().Revoked; len(got) != maxRevoked || got[0] != s.Revoked[1] {
		t.Errorf("%d tombstones", len(got))
	}
	for range maxInvites {
		invite(t, h, "", false)
	}
	if n := len(h.Tokens()); n != wire.MaxTokens-1 {
		t.Errorf("%d tokens, want %d", n, wire.MaxTokens-1)
	}
	path := h.dir.path
	h.Close()
	openHome(t, path) // what was written is readable
}

func TestChangedMissesNothing(t *testing.T) {
	h := newHome(t)
	c := h.Changed()
	if c != h.Changed() {
		t.Error("the channel changes without a change")
	}
	add(t, h, "tv", e2e.Pin{1})
	<-c
	if h.Changed() == c {
		t.Error("a closed channel is given out")
	}
	if err := h.SetEnabled(true); err != nil { // no change
		t.Fatal(err)
	}
	if err := h.SetRelays(testRelays); err != nil { // no change
		t.Fatal(err)
	}
	select {
	case <-h.Changed():
		t.Error("told of a change that was none")
	default:
	}
}

func TestHomeConcurrently(t *testing.T) {
	h := newHome(t)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5 {
				name := fmt.Sprintf("d%d-%d", g, i)
				pin := e2e.Pin{byte(g), byte(i), 1}
				add(t, h, name, pin)
				h.Tokens()
				h.Devices()
				<-time.After(0)
				if _, ok := h.Admit(pin); !ok {
					t.Errorf("%s is not admitted", name)
				}
				if i%2 == 0 {
					if err := h.Revoke(name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(h.Devices()); n != 8 {
		t.Errorf("%d devices, want 8", n)
	}
}

func FuzzHomeFile(f *testing.F) {
	h := newHome(f)
	add(f, h, "tv", e2e.Pin{1})
	add(f, h, "old", e2e.Pin{2})
	if err := h.Revoke("old"); err != nil {
		f.Fatal(err)
	}
	invite(f, h, "next", true)
	b, err := os.ReadFile(h.dir.file(homeName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"server":"x"}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseHome(b)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseHome(again); err != nil {
			t.Fatalf("what was read is refused when written: %v\n%s", err, again)
		}
	})
}
