package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// KeyPin is the SHA-256 of a public key as DER SubjectPublicKeyInfo (RFC 7469,
// section 2.4).
type KeyPin [sha256.Size]byte

// String returns the pin in base64url without padding, 43 characters.
func (p KeyPin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// MaxRelayAddr is the longest address of a relay, in bytes.
const MaxRelayAddr = 200

// Relay is where a relay listens and how to recognise it.
type Relay struct {
	Addr string // host:port, at most MaxRelayAddr bytes of ASCII
	Pin  KeyPin // of its key; zero: its certificate must be publicly trusted for the host
}

// ParseRelay reads HOST:PORT or HOST:PORT#PIN, PIN as `blindrelay serve` prints
// it. There is one text for each relay.
func ParseRelay(s string) (Relay, error) {
	addr, pin, pinned := strings.Cut(s, "#")
	r := Relay{Addr: addr}
	if err := r.Check(); err != nil {
		return Relay{}, err
	}
	if !pinned {
		return r, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(pin)
	if err != nil || len(b) != len(KeyPin{}) || base64.RawURLEncoding.EncodeToString(b) != pin {
		return Relay{}, fmt.Errorf("relay %s: the part behind # is not a pin: a pin is 43 characters, as `blindrelay serve` prints them", addr)
	}
	r.Pin = KeyPin(b)
	if !r.Pinned() {
		return Relay{}, fmt.Errorf("relay %s: the pin is all zeros; leave it out where the certificate is publicly trusted", addr)
	}
	return r, nil
}

// Pinned reports whether the relay is recognised by its key alone.
func (r Relay) Pinned() bool { return r.Pin != KeyPin{} }

// String returns the text that ParseRelay reads.
func (r Relay) String() string {
	if !r.Pinned() {
		return r.Addr
	}
	return r.Addr + "#" + r.Pin.String()
}

// MarshalText returns the relay as String does.
func (r Relay) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the relay as ParseRelay does.
func (r *Relay) UnmarshalText(b []byte) error {
	p, err := ParseRelay(string(b))
	if err == nil {
		*r = p
	}
	return err
}

// Check demands an address that can be dialed, that is safe to print on a
// terminal, and that has one spelling of its brackets and port.
func (r Relay) Check() error {
	bad := func(why string) error {
		return fmt.Errorf("%q is not a relay address: %s; write HOST:PORT, for example relay.example.org:4433", r.Addr, why)
	}
	if len(r.Addr) > MaxRelayAddr {
		return fmt.Errorf("a relay address has %d bytes, at most %d", len(r.Addr), MaxRelayAddr)
	}
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return bad("it has no host and port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return bad("the port must be a number from 1 to 65535")
	}
	if host == "" {
		return bad("the host is missing")
	}
	for _, c := range []byte(host) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_:", c) >= 0) {
			return bad("the host has a character that host names do not have")
		}
	}
	if net.JoinHostPort(host, port) != r.Addr {
		return bad("only an IPv6 address stands in brackets")
	}
	return nil
}
