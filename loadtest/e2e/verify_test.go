//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

// verified is what `blindlink verify --json` prints of one session.
type verified struct {
	Device, Server, Words, Suite, Group string
	DevicePin                           string    `json:"device_pin"`
	ServerPin                           string    `json:"server_pin"`
	Since                               time.Time `json:"since"`
}

// same is what the two ends of a session must agree on.
func (s verified) same() verified {
	s.Since = time.Time{}
	return s
}

// verifyAll runs the command on a state directory and returns what it shows.
func verifyAll(t *testing.T, state string, args ...string) (all []verified) {
	t.Helper()
	args = append([]string{"verify", "--json", "--state", state}, args...)
	r := run(t, 20*time.Second, "blindlink", args...).want(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) == 0 {
		t.Fatalf("%v: %v", err, r)
	}
	for _, s := range all {
		if len(strings.Fields(s.Words)) != 6 || len(s.DevicePin) != 43 || len(s.ServerPin) != 43 || !strings.HasPrefix(s.Suite, "TLS_") || s.Group != "X25519MLKEM768" || s.Since.IsZero() {
			t.Errorf("%+v", s)
		}
	}
	return all
}

// verifyOne is verifyAll where one session is expected.
func verifyOne(t *testing.T, state string, args ...string) verified {
	t.Helper()
	all := verifyAll(t, state, args...)
	if len(all) != 1 {
		t.Fatalf("%d sessions are shown, want 1: %+v", len(all), all)
	}
	return all[0]
}

// TestVerify: both ends of a session show the same, those of another session
// something else, and a device that has no `open` running makes a session for
// the purpose.
func TestVerify(t *testing.T) {
	a := share(t, openRelay(t), startHello(t))
	a.link(t, "verify").want(t, 1, "nobody is connected")
	tv, phone := open(t, a, "--name", "tv"), open(t, a, "--name", "phone")

	words := map[string]bool{}
	for name, d := range map[string]device{"tv": tv, "phone": phone} {
		home, away := verifyOne(t, a.state, name), verifyOne(t, d.state)
		if home.same() != away.same() || home.Device != name {
			t.Errorf("%s: home shows %+v, the device %+v", name, home, away)
		}
		text := run(t, 20*time.Second, "blindlink", "verify", "--state", d.state).want(t, 0).stdout
		if m := missing(text, []string{home.Words, home.ServerPin, home.DevicePin, home.Suite, home.Group, "read the six words", "devices revoke"}); m != nil {
			t.Errorf("the text does not say %q: %s", m, text)
		}
		words[home.Words] = true
	}
	if all := verifyAll(t, a.state); len(all) != 2 || len(words) != 2 {
		t.Errorf("home shows %+v, sessions have the words %v", all, words)
	}
	a.link(t, "verify", "nobody").want(t, 1, `"nobody"`)

	t.Run("without open", func(t *testing.T) {
		tv.stop(t)
		cmd := command(context.Background(), t, "blindlink", "verify", "--json", "--state", tv.state)
		enter, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, "verify", cmd)
		text := p.await(t, p.stdout, "print JSON", func(text string) (string, bool) {
			return text, json.Valid([]byte(text))
		})
		p.wantSaid(t, "press Enter")
		var away []verified
		if err := json.Unmarshal([]byte(text), &away); err != nil || len(away) != 1 {
			t.Fatalf("%v: %s", err, text)
		}
		// The session before may still be there: its goodbye takes the same way.
		home := verifyAll(t, a.state, "tv")
		if newest := home[len(home)-1]; newest.same() != away[0].same() || words[newest.Words] {
			t.Errorf("home shows %+v, the device %+v, words before %v", home, away[0], words)
		}
		io.WriteString(enter, "\n")
		p.wantExit(t, stopTimeout, 0)
	})
	t.Run("after a revocation", func(t *testing.T) {
		a.link(t, "devices", "revoke", "tv").want(t, 0)
		run(t, 30*time.Second, "blindlink", "verify", "--state", tv.state).want(t, 1, "revoked")
		verifyOne(t, a.state)
	})
	a.stop(t)
	a.link(t, "verify").want(t, 1, "not running")
}

// TestVerifyFindsManInTheMiddle lets a device pair with a stranger's home whose
// media server is the true home, through the stranger's own device: what
// somebody does who caught the invite on its way and sent on one of his own.
// All works, and the two ends show different words.
func TestVerifyFindsManInTheMiddle(t *testing.T) {
	r := openRelay(t)
	home := share(t, r, startHello(t))
	stranger := open(t, home, "--name", "tv")
	middle := share(t, r, strings.TrimSuffix(stranger.url, "/"))
	tv := open(t, middle, "--name", "tv")
	wantPage(t, tv, 0)

	at, away := verifyOne(t, home.state, "tv"), verifyOne(t, tv.state)
	if at.Device != away.Device {
		t.Fatalf("the names alone give it away: %+v, %+v", at, away)
	}
	if at.Words == away.Words || at.ServerPin == away.ServerPin || at.DevicePin == away.DevicePin {
		t.Errorf("with a stranger between, home shows %+v and the device %+v", at, away)
	}
}
