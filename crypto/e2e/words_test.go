package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// TestWordList: the list is the one that everybody has, and four letters are
// enough to tell its words apart.
func TestWordList(t *testing.T) {
	const english = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda" // sha256sum of bip-0039/english.txt
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(wordList))); sum != english {
		t.Errorf("the list's SHA-256 is %s", sum)
	}
	seen := map[string]bool{}
	for _, w := range strings.Fields(wordList) {
		seen[w[:min(4, len(w))]] = true
	}
	if len(seen) != 2048 {
		t.Errorf("%d words differ in their first four letters, want 2048", len(seen))
	}
}

// TestWords: a known answer, computed in Python with hmac alone; the edges of
// the list; and each input changes the words.
func TestWords(t *testing.T) {
	words := func(change func(secret []byte, cs *tls.ConnectionState, server, device *Pin)) string {
		secret := count(0, secretLen)
		cs := tls.ConnectionState{CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519MLKEM768}
		server, device := Pin(count(0x20, 32)), Pin(count(0x40, 32))
		change(secret, &cs, &server, &device)
		p, err := prove(secret, cs, server, device)
		if err != nil || p.Server != server || p.Device != device || p.Suite != cs.CipherSuite || p.Group != cs.CurveID {
			t.Fatalf("%+v, %v", p, err)
		}
		return p.Words()
	}
	got := words(func([]byte, *tls.ConnectionState, *Pin, *Pin) {})
	if want := "knee notice submit shiver radio among"; got != want {
		t.Errorf("words %q, want %q", got, want)
	}
	seen := map[string]string{got: "nothing"}
	for what, change := range map[string]func(secret []byte, cs *tls.ConnectionState, server, device *Pin){
		"the secret": func(s []byte, _ *tls.ConnectionState, _, _ *Pin) { s[31] ^= 1 },
		"the suite":  func(_ []byte, cs *tls.ConnectionState, _, _ *Pin) { cs.CipherSuite = tls.TLS_AES_256_GCM_SHA384 },
		"the group":  func(_ []byte, cs *tls.ConnectionState, _, _ *Pin) { cs.CurveID = tls.X25519 },
		"the server": func(_ []byte, _ *tls.ConnectionState, s, _ *Pin) { s[31] ^= 1 },
		"the device": func(_ []byte, _ *tls.ConnectionState, _, d *Pin) { d[0] ^= 1 },
		"the roles":  func(_ []byte, _ *tls.ConnectionState, s, d *Pin) { *s, *d = *d, *s },
	} {
		w := words(change)
		if same, ok := seen[w]; ok {
			t.Errorf("the words are the same after a change of %s as after one of %s", what, same)
		}
		seen[w] = what
	}
	var p Proof
	if w := p.Words(); w != "abandon abandon abandon abandon abandon abandon" {
		t.Errorf("zeros are %q", w)
	}
	for i := range p.code {
		p.code[i] = 0xff
	}
	if w := p.Words(); w != "zoo zoo zoo zoo zoo zoo" {
		t.Errorf("ones are %q", w)
	}
	p = Proof{}
	p.code[8] = 1 << 6 // the last of 66 bits
	if w := p.Words(); w != "abandon abandon abandon abandon abandon ability" {
		t.Errorf("the last bit is %q", w)
	}
}

// TestProof: both ends of a session have the same proof, also after it has
// moved to another attachment; no two sessions have; who was not let in has
// none.
func TestProof(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tv, phone := w.allow(newIdentity(t)), w.allow(newP256Identity(t))
		stranger := newIdentity(t)
		w.server.cfg.Admit = func(p Pin) (Welcome, error) {
			for _, shown := range w.server.Proofs() {
				if p == phone.Pin() && shown.Device == p {
					t.Error("the agent shows a session that it has not admitted")
				}
			}
			return w.admit(p)
		}
		a, b, c := w.connect(tv, 1), w.connect(tv, 2), w.connect(phone, 3)
		refused := w.connect(stranger, 4)
		if _, err := refused.Welcome(context.Background()); err == nil {
			t.Error("a stranger was let in")
		}
		words := map[string]bool{}
		for _, s := range []*Session{a, b, c} {
			if _, err := s.Welcome(context.Background()); err != nil {
				t.Fatal(err)
			}
			words[s.Proof().Words()] = true
			if p := s.Proof(); p.Server != w.id.Pin() || p.Group != tls.X25519MLKEM768 || p.Suite != s.suite.id {
				t.Errorf("%+v", p)
			}
		}
		if len(words) != 3 {
			t.Errorf("three sessions have the words %v", words)
		}
		check := func() {
			t.Helper()
			all := w.server.Proofs()
			if len(all) != 3 {
				t.Errorf("the agent has %d proofs, want 3", len(all))
			}
			for _, s := range []*Session{a, b, c} {
				if !slices.ContainsFunc(all, func(p Proof) bool {
					return p.Words() == s.Proof().Words() && p.Device == s.Proof().Device && p.Server == s.Proof().Server
				}) {
					t.Errorf("the agent does not show the words of %v", s.Proof())
				}
			}
		}
		check()
		if _, err := w.join(a, 5); err != nil {
			t.Fatal(err)
		}
		w.drop(1)
		synctest.Wait()
		check()
		c.Close(0, "done")
		synctest.Wait()
		if n := len(w.server.Proofs()); n != 2 {
			t.Errorf("%d proofs after a session has ended, want 2", n)
		}
	})
}

// TestProofWithManInTheMiddle: somebody who swapped the invite holds a session
// with each end and passes every byte on. The film plays, and the words differ.
func TestProofWithManInTheMiddle(t *testing.T) {
	inWorld(t, func(t *testing.T, home *world) {
		mallory := home.allow(newIdentity(t)) // paired at home with the device's invite
		middle := &world{t: t, id: mallory, devices: make(map[Pin]Welcome)}
		var err error
		if middle.server, err = NewServer(ServerConfig{Identity: mallory, Admit: middle.admit}); err != nil {
			t.Fatal(err)
		}
		defer middle.close()
		device := middle.connect(middle.allow(newIdentity(t)), 1) // with an invite of his
		up := home.connect(mallory, 1)
		film := []byte("what the server at home has sent")

		if got := middle.through(t, device, home.through(t, up, film)); !bytes.Equal(got, film) {
			t.Error("the man in the middle does not pass the film on")
		}
		if _, err := device.Welcome(context.Background()); err != nil {
			t.Fatal(err)
		}
		shown := device.Proof()
		for _, p := range home.server.Proofs() {
			if p.Words() == shown.Words() || p.Server == shown.Server || p.Device == shown.Device {
				t.Errorf("both ends show %q, pins %v %v", p.Words(), p.Server, p.Device)
			}
		}
		if len(home.server.Proofs()) != 1 {
			t.Error("the home shows nothing to compare")
		}
	})
}

// through sends bytes from the agent over a session's stream and returns what
// arrives.
func (w *world) through(t *testing.T, s *Session, b []byte) []byte {
	t.Helper()
	device, agent := w.streams(s)
	if _, err := agent.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := agent.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(device)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
