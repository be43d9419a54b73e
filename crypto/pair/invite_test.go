package pair

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

func goldenInvite() Invite {
	i := Invite{Expires: time.Unix(1767225600, 0).UTC(), Relays: []wire.Relay{{Addr: "relay.example.org:4433"}}}
	fill(i.Server[:], 0x00)
	fill(i.secret[:], 0x40)
	fill(i.Route[:], 0x80)
	return i
}

func fill(b []byte, from byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
}

func goldenPinned() Invite {
	i := goldenInvite()
	i.Approve = true
	i.Relays = []wire.Relay{{Addr: "a.example:1"}, {Addr: "[2001:db8::1]:443"}, {Addr: "192.0.2.7:65535"}}
	fill(i.Relays[1].Pin[:], 0xc0)
	return i
}

func goldenTCP() Invite {
	i := goldenInvite()
	i.Relays[0].TCPPort = 443
	return i
}

// longest is an invite with everything as long as it may be.
func longest() Invite {
	i := goldenPinned()
	for n := range i.Relays {
		i.Relays[n] = wire.Relay{Addr: strings.Repeat("x", wire.MaxRelayAddr-6) + fmt.Sprintf(":1000%d", n), Pin: wire.KeyPin{1}, TCPPort: 65535}
	}
	return i
}

// The golden texts were computed by an independent program from the layout in
// the comment at the top of invite.go (testdata/invite.py).
func TestInviteGolden(t *testing.T) {
	for _, tc := range []struct {
		name, text, token string
		inv               Invite
	}{
		{"plain", goldenPlainText, goldenToken, goldenInvite()},
		{"pins and approval", goldenPinnedText, goldenToken, goldenPinned()},
		{"TCP port", goldenTCPText, goldenToken, goldenTCP()},
	} {
		if got := tc.inv.Text(); got != tc.text {
			t.Errorf("%s: text\n%s, want\n%s", tc.name, got, tc.text)
		}
		got, err := ParseInvite(tc.text)
		if err != nil || !reflect.DeepEqual(got, tc.inv) {
			t.Errorf("%s: parsed %#v, %v", tc.name, got, err)
		}
		tok := tc.inv.Token()
		if got := hex.EncodeToString(tok[:]); got != tc.token {
			t.Errorf("%s: token %s, want %s", tc.name, got, tc.token)
		}
	}
}

func TestInviteForgives(t *testing.T) {
	text := goldenPinnedText
	var grouped strings.Builder
	for i, c := range text {
		if i > 0 && i%5 == 0 {
			grouped.WriteString([]string{" ", "-", "\r\n", "\t", "\u00a0", "\u2013"}[i/5%6])
		}
		grouped.WriteRune(c)
	}
	for _, s := range []string{strings.ToLower(text), " " + text + "\n", grouped.String(), strings.ToLower(grouped.String())} {
		if got, err := ParseInvite(s); err != nil || got.Text() != text {
			t.Errorf("%q: %v", s, err)
		}
	}
	long := longest()
	if n := len(long.Text()); n != 1272 { // maxInviteText is chosen for this
		t.Errorf("the longest invite has %d characters, want 1272", n)
	}
	if got, err := ParseInvite(long.Text()); err != nil || !reflect.DeepEqual(got, long) {
		t.Errorf("longest invite: %v", err)
	}
}

// TestInviteTypo changes each character to each other one that can be typed.
func TestInviteTypo(t *testing.T) {
	const typed = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:!_"
	for _, text := range []string{goldenPlainText, goldenPinnedText} {
		for i := range text {
			for _, c := range []byte(typed) {
				if c == text[i] {
					continue
				}
				bad := text[:i] + string(c) + text[i+1:]
				if _, err := ParseInvite(bad); err == nil {
					t.Fatalf("accepted with %c for %c at character %d", c, text[i], i+1)
				} else if i >= len(invitePrefix) && !errors.Is(err, errTypo) && !errors.Is(err, errCut) {
					t.Fatalf("%c for %c at character %d: %v", c, text[i], i+1, err)
				}
			}
			if i > 0 && text[i] != text[i-1] {
				swapped := text[:i-1] + text[i:i+1] + text[i-1:i] + text[i+1:]
				if _, err := ParseInvite(swapped); err == nil {
					t.Fatalf("accepted with characters %d and %d swapped", i, i+1)
				}
			}
			if _, err := ParseInvite(text[:i] + text[i+1:]); err == nil && (i == 0 || text[i] != text[i-1]) {
				t.Fatalf("accepted without character %d", i+1)
			}
			if _, err := ParseInvite(text[:i] + "A" + text[i:]); err == nil {
				t.Fatalf("accepted with an A before character %d", i+1)
			}
		}
	}
}

func TestInviteCut(t *testing.T) {
	for n := 1; n < len(goldenPinnedText); n++ {
		if _, err := ParseInvite(goldenPinnedText[:n]); !errors.Is(err, errCut) && !errors.Is(err, errTypo) {
			t.Errorf("%d characters: %v", n, err)
		} else if n%8 == 4 && !errors.Is(err, errCut) { // whole bytes, so it is certain
			t.Errorf("%d characters: %v, want %v", n, err, errCut)
		}
	}
}

func TestInviteRefused(t *testing.T) {
	resealed := func(change func(b []byte) []byte) string {
		b := goldenPinned().encode()
		b = change(b[:len(b)-checkLen])
		return invitePrefix + inviteText.EncodeToString(append(b, inviteCheck(b)...))
	}
	with := func(relays ...wire.Relay) string {
		i := goldenInvite()
		i.Relays = relays
		return i.Text()
	}
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "not an invite"},
		{"a server's name", "living room", "not an invite"},
		{"a web page", "<html>" + strings.Repeat("x", 100), "not an invite"},
		{"very long", goldenPlainText + strings.Repeat(" ", maxInviteText), "shorter than 8192 characters"},
		{"prefix only", "br1", "cut off"},
		{"nothing behind the prefix", "BR1:", "cut off"},
		{"prefix of version 0", "BR0:" + goldenPlainText[4:], "not an invite"},
		{"prefix of version 2", "br2:" + goldenPlainText[4:], "update blindlink"},
		{"prefix of version 17", "BR17:AAAA", "update blindlink"},
		{"digits that base32 lacks", strings.Replace(goldenPlainText, "A", "0", 1), "'0' at character"},
		{"stray bits at the end", strayBits(goldenPlainText), "typo"},
		{"padding", goldenPlainText + "=", "'='"},
		{"later version", resealed(func(b []byte) []byte { b[0] = 2; return append(b, 1, 2, 3) }), "update blindlink"},
		{"later flag", resealed(func(b []byte) []byte { b[1] |= 4; return b }), "update blindlink"},
		{"version 0", resealed(func(b []byte) []byte { b[0] = 0; return b }), "malformed"},
		{"bytes behind the end", resealed(func(b []byte) []byte { return append(b, 0) }), "malformed"},
		{"a byte too few", resealed(func(b []byte) []byte { return b[:len(b)-1] }), "malformed"},
		{"nothing but a check", resealed(func(b []byte) []byte { return b[:0] }), "cut off"},
		{"pins announced, all zero", resealed(func(b []byte) []byte { clear(b[len(b)-96:]); return b }), "no"},
		{"no relay", with(), "from 1 to 3"},
		{"four relays", with(make([]wire.Relay, 4)...), "malformed"},
		{"relay without port", with(wire.Relay{Addr: "relay.example"}), "HOST:PORT"},
		{"relay with an escape sequence", with(wire.Relay{Addr: "a\x1b[2J:1"}), "HOST:PORT"},
		{"relay with port 0", with(wire.Relay{Addr: "a:0"}), "port"},
		{"relay with a padded port", with(wire.Relay{Addr: "a:0443"}), "port"},
		{"relay with the same port twice", with(wire.Relay{Addr: "a:443/443"}), "HOST:PORT"},
		{"relay with its pin in the address", with(wire.Relay{Addr: "a:443#" + wire.KeyPin{1}.String()}), "HOST:PORT"},
		{"relay without host", with(wire.Relay{Addr: ":443"}), "host is missing"},
		{"relay in needless brackets", with(wire.Relay{Addr: "[a]:443"}), "brackets"},
		{"relay that is too long", with(wire.Relay{Addr: strings.Repeat("x", 199) + ":1"}), "at most 200"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseInvite(tc.text)
			wantErr(t, err, tc.want)
		})
	}
	if _, err := ParseInvite("living room"); !errors.Is(err, ErrNotInvite) {
		t.Errorf("a name gives %v, want ErrNotInvite", err)
	}
	if _, err := ParseInvite(goldenPlainText[:40]); errors.Is(err, ErrNotInvite) {
		t.Error("a cut invite is said to be none")
	}
}

// strayBits sets a bit of the last character that carries no content.
func strayBits(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	end := len(text) - 1
	return text[:end] + string(alphabet[strings.IndexByte(alphabet, text[end])|1])
}

func TestInviteExpired(t *testing.T) {
	i := goldenInvite()
	if err := i.Expired(i.Expires.Add(-time.Nanosecond)); err != nil {
		t.Error(err)
	}
	wantErr(t, i.Expired(i.Expires), "expired on 1 January 2026 at 00:00:00 UTC")
}

func TestInviteShowsNoSecret(t *testing.T) {
	i := goldenInvite()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{i, &i, []Invite{i}, struct{ I Invite }{i}} {
			got := fmt.Sprintf(format, v)
			for _, secret := range []string{"404142", "64 65 66", "0x40, 0x41", "@ABC", goldenPlainText[60:80]} {
				if strings.Contains(got, secret) {
					t.Errorf("%s of %T shows the secret: %s", format, v, got)
				}
			}
		}
	}
}

func TestRelayText(t *testing.T) {
	for _, r := range testRelays {
		if got, err := wire.ParseRelay(r.String()); err != nil || got != r {
			t.Errorf("%s: %v, %v", r, got, err)
		}
	}
	for _, bad := range []string{"", "a", "a:1#", "a:1#AAAA", "a:1#" + e2e.Pin{}.String(), "a b:1", "a:1 "} {
		if r, err := wire.ParseRelay(bad); err == nil {
			t.Errorf("%q gives %v", bad, r)
		}
	}
}

func FuzzParseInvite(f *testing.F) {
	for _, s := range []string{goldenPlainText, goldenPinnedText, goldenTCPText, longest().Text(), goldenPlainText[:50], "BR2:AA", "br1:", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := ParseInvite(s)
		if err != nil {
			return
		}
		if got := i.Text(); got != squeeze(s) {
			t.Fatalf("%q is another spelling of %q", s, got)
		}
		if err := checkRelays(i.Relays); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeInvite gives every input a check that matches.
func FuzzDecodeInvite(f *testing.F) {
	for _, i := range []Invite{goldenInvite(), goldenPinned(), longest()} {
		b := i.encode()
		f.Add(b[:len(b)-checkLen])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, inviteCheck(b)...)
		i, err := decodeInvite(b)
		if err == nil && string(i.encode()) != string(b) {
			t.Fatalf("%x is another form of %x", b, i.encode())
		}
	})
}
