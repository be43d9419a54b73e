package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	var w window
	steps := []struct {
		id   uint64
		want bool
	}{
		{5, true}, {5, false}, {4, true}, {0, true}, {0, false}, {4, false},
		{5 + windowLen - 1, true}, {5, false}, {6, true}, {4, false},
		{5 + windowLen, true}, {5, false}, {6, false}, {7, true},
		{1 << 40, true}, {1 << 40, false}, {1<<40 - windowLen + 1, true}, {1<<40 - windowLen, false}, {1<<40 - 1, true},
		{maxStreamID, true}, {maxStreamID, false}, {1 << 40, false},
	}
	for i, s := range steps {
		if got := w.use(s.id); got != s.want {
			t.Errorf("step %d: use(%d) = %v", i, s.id, got)
		}
	}
	// Against a plain set, with steps of every size up to past the window.
	w = window{}
	seen := make(map[uint64]bool)
	var top uint64
	for i := range uint64(20_000) {
		id := top + i*7919%6000
		id -= min(id, i*104729%5000)
		want := !seen[id] && (id >= top || top-id < windowLen)
		if i == 0 {
			want = true
		}
		if got := w.use(id); got != want {
			t.Fatalf("use(%d) with highest %d = %v", id, top, got)
		}
		seen[id] = true
		top = max(top, id)
	}
}

func TestPin(t *testing.T) {
	id := newIdentity(t)
	pin, err := PinOf(id.cert.Leaf.PublicKey)
	if err != nil || pin != id.Pin() {
		t.Fatalf("PinOf = %s, %v, want %s", pin, err, id.Pin())
	}
	if got, err := ParsePin(pin.String()); err != nil || got != pin || len(pin.String()) != 43 {
		t.Errorf("ParsePin(%s) = %s, %v", pin, got, err)
	}
	s := pin.String()
	for _, bad := range []string{"", s + "=", s[1:], s + "A", " " + s, "\n" + s, s[:42] + "*", strings.Repeat("_", 43)} {
		if _, err := ParsePin(bad); err == nil {
			t.Errorf("ParsePin(%q) accepts it", bad)
		}
	}
	if _, err := PinOf("no key"); err == nil {
		t.Error("PinOf accepts a string")
	}
}

func TestIdentity(t *testing.T) {
	for _, id := range []*Identity{newIdentity(t), newP256Identity(t)} {
		c := id.cert.Leaf
		if c.Subject.String() != "" || c.Issuer.String() != "" || c.NotAfter.Year() != 9999 || c.NotBefore.After(time.Unix(0, 0)) || len(c.DNSNames) != 0 {
			t.Errorf("the certificate says more than the key: %+v", c.Subject)
		}
	}
	key, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if _, err := NewIdentity(key); err == nil {
		t.Error("a P-384 key became an identity")
	}
	if _, err := NewIdentity(nil); err == nil {
		t.Error("no key became an identity")
	}
	if _, err := NewServer(ServerConfig{Identity: newIdentity(t)}); err == nil {
		t.Error("a server without Admit")
	}
}

func TestErrorKinds(t *testing.T) {
	for _, err := range []error{ErrSpliced, ErrReplay, ErrTrailing, ErrTruncated, errRecord, errEmptyRecords} {
		if !errors.Is(fmt.Errorf("x: %w", err), ErrTampered) {
			t.Errorf("%v is no ErrTampered", err)
		}
	}
	if !errors.Is(ErrTruncated, io.ErrUnexpectedEOF) || errors.Is(ErrTampered, ErrTruncated) || errors.Is(ErrTruncated, io.EOF) {
		t.Error("ErrTruncated is not what it says")
	}
}

func TestFrameLimits(t *testing.T) {
	if err := WriteFrame(io.Discard, Frame{Payload: make([]byte, MaxFramePayload+1)}); !errors.Is(err, ErrFrame) {
		t.Errorf("too long a frame: %v", err)
	}
	for _, w := range []Welcome{
		{MaxStreams: -1}, {MaxStreams: 1 << 16}, {Idle: time.Second}, {Idle: time.Hour}, {Idle: 3500 * time.Millisecond},
		{Relays: make([]string, MaxRelays+1)}, {Relays: []string{""}}, {Relays: []string{strings.Repeat("x", 256)}}, {Relays: []string{"\xff"}},
	} {
		if _, err := w.withDefaults(); err == nil {
			t.Errorf("%+v can be said", w)
		}
	}
}

// TestProfile breaks each item of the TLS profile alone: no other check, and no
// tls.Config, may be all that stands between.
func TestProfile(t *testing.T) {
	id := newIdentity(t)
	good := func() tls.ConnectionState {
		return tls.ConnectionState{
			Version: tls.VersionTLS13, CurveID: tls.X25519MLKEM768, NegotiatedProtocol: alpnSession,
			CipherSuite: tls.TLS_AES_128_GCM_SHA256, PeerCertificates: []*x509.Certificate{id.cert.Leaf},
		}
	}
	if pin, err := checkProfile(good(), alpnSession); err != nil || pin != id.Pin() {
		t.Fatal(pin, err)
	}
	for name, spoil := range map[string]func(*tls.ConnectionState){
		"version":     func(cs *tls.ConnectionState) { cs.Version = tls.VersionTLS12 },
		"group":       func(cs *tls.ConnectionState) { cs.CurveID = tls.X25519 },
		"other ALPN":  func(cs *tls.ConnectionState) { cs.NegotiatedProtocol = alpnPairing },
		"no ALPN":     func(cs *tls.ConnectionState) { cs.NegotiatedProtocol = "" },
		"resumed":     func(cs *tls.ConnectionState) { cs.DidResume = true },
		"suite":       func(cs *tls.ConnectionState) { cs.CipherSuite = 0x1304 },
		"server name": func(cs *tls.ConnectionState) { cs.ServerName = "home" },
		"no key":      func(cs *tls.ConnectionState) { cs.PeerCertificates = nil },
		"two keys":    func(cs *tls.ConnectionState) { cs.PeerCertificates = append(cs.PeerCertificates, id.cert.Leaf) },
		"unknown key": func(cs *tls.ConnectionState) { cs.PeerCertificates = []*x509.Certificate{{}} },
	} {
		cs := good()
		spoil(&cs)
		if _, err := checkProfile(cs, alpnSession); !errors.Is(err, errProfile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cs := good()
	cs.NegotiatedProtocol = "h2"
	if _, err := checkProfile(cs, "h2"); !errors.Is(err, errProfile) {
		t.Errorf("a protocol that is not ours: %v", err)
	}
}

// TestHeaderIsCheckedFirst: a header that cannot be right fails before a whole
// record was waited for.
func TestHeaderIsCheckedFirst(t *testing.T) {
	for header, want := range map[uint64]int{
		minSealed<<48 | 7: recordHeaderLen + minSealed, maxSealed<<48 | 7: recordHeaderLen + maxSealed,
		(minSealed-1)<<48 | 7: 0, (maxSealed+1)<<48 | 7: 0, minSealed<<48 | maxRecords: 0, minSealed<<48 | (maxRecords - 1): recordHeaderLen + minSealed, 7: 0,
	} {
		_, n, err := recordHeader(binary.BigEndian.AppendUint64(nil, header))
		if n != want || (err == nil) != (want != 0) {
			t.Errorf("header %016x: %d, %v", header, n, err)
		}
	}
}

// TestWelcomeLongestRelay has relays of the greatest length that one byte says.
func TestWelcomeLongestRelay(t *testing.T) {
	w := Welcome{MaxStreams: 1, Idle: defaultIdle}
	for range MaxRelays {
		w.Relays = append(w.Relays, strings.Repeat("r", MaxRelayText))
	}
	got, err := parseWelcome(w.payload())
	if err != nil || !slices.Equal(got.Relays, w.Relays) {
		t.Errorf("%d relays came back, %v", len(got.Relays), err)
	}
}
