//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"testing"
	"time"
)

// TestInvites refuses every invite that is not a fresh one, with a sentence
// that says what to do, and does not keep the person waiting.
func TestInvites(t *testing.T) {
	r := openRelay(t)
	a := share(t, r, startHello(t))

	refused := func(t *testing.T, text string, code int, words ...string) {
		t.Helper()
		res := run(t, 30*time.Second, "blindlink", "open", "--listen", "127.0.0.1:0", "--state", newState(t), text)
		res.want(t, code, words...)
		if res.stdout != "" {
			t.Errorf("stdout of a refused device is not empty: %v", res)
		}
		if strings.Contains(res.stderr, text) {
			t.Errorf("the sentence repeats the invite, which is a secret: %v", res)
		}
	}
	t.Run("typo", func(t *testing.T) {
		refused(t, withTypo(a.invite(t)), 1, "typo", "copy it again")
	})
	t.Run("cut short", func(t *testing.T) {
		text := a.invite(t)
		for n := 8; n < len(text); n += 7 {
			refused(t, text[:n], 1, "copy it")
		}
	})
	t.Run("newer version", func(t *testing.T) {
		refused(t, newerVersion(t, a.invite(t)), 1, "newer version", "update blindlink")
	})
	t.Run("expired", func(t *testing.T) {
		text := a.invite(t, "--ttl", "1s")
		expired := time.Now().Add(2 * time.Second) // its expiry is in whole seconds
		eventually(t, 5*time.Second, "the invite expires", func() error { return notBefore(expired) })
		refused(t, text, 1, "invite expired", "ask for a new one")
	})
	t.Run("used twice", func(t *testing.T) {
		text := a.invite(t)
		d := startDevice(t, newState(t), text)
		d.url = d.awaitURL(t)
		refused(t, text, 1, "used", "new invite")
		wantPage(t, d, 0)
		wantPage(t, d.reopen(t), 0) // without the invite, which it needed once
	})
	t.Run("forgiven", func(t *testing.T) { // case, blanks and dashes
		text := strings.ToLower(a.invite(t))
		text = "  " + text[:20] + "-" + text[20:40] + " " + text[40:] + "\n"
		d := startDevice(t, newState(t), text)
		d.url = d.awaitURL(t)
		wantPage(t, d, 0)
	})
}

// withTypo changes one character in the middle of an invite.
func withTypo(text string) string {
	b := []byte(text)
	i := len(b) / 2
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// newerVersion makes a well-formed invite of a version that does not exist yet.
func newerVersion(t *testing.T, text string) string {
	t.Helper()
	encoding := base32.StdEncoding.WithPadding(base32.NoPadding)
	b, err := encoding.DecodeString(strings.TrimPrefix(text, "BR1:"))
	if err != nil || len(b) < 8 {
		t.Fatalf("decode the invite: %v", err)
	}
	body := b[:len(b)-4]
	body[0]++
	check := sha256.Sum256(append([]byte("blindrelay-invite/1\x00"), body...))
	return "BR1:" + encoding.EncodeToString(append(body, check[:4]...))
}

// TestManyDevices lets one device after the other pair and leave. Each changes
// the list that the relay holds, and none may disturb who is there.
func TestManyDevices(t *testing.T) {
	a := share(t, openRelay(t), startDrip(t))
	stream := dripping(t, open(t, a))
	for i := range 60 {
		open(t, a).stop(t)
		select {
		case err := <-stream.ended:
			t.Fatalf("device %d came and left, and the first device's response ended: %v", i, err)
		default:
		}
	}
}
