package pair

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

const (
	// maxRelays is how many relays an invite, a grant or a settings file may name.
	maxRelays = 3
	// maxAddr is the longest "host:port" in bytes, such that Relay.String fits
	// the 255 bytes of a relay in a WELCOME.
	maxAddr = 200
)

// Relay is where a relay listens and how to recognise it.
type Relay struct {
	Addr string  // "host:port", at most 200 bytes of ASCII
	Pin  e2e.Pin // SHA-256 of its key; zero: its certificate must be publicly trusted for the host
}

// ParseRelay reads "HOST:PORT" or "HOST:PORT#PIN", PIN as `blindrelay serve`
// prints it (43 characters of base64url).
func ParseRelay(s string) (Relay, error) {
	addr, pin, pinned := strings.Cut(s, "#")
	r := Relay{Addr: addr}
	if err := checkAddr(addr); err != nil {
		return Relay{}, err
	}
	if !pinned {
		return r, nil
	}
	p, err := e2e.ParsePin(pin)
	if err != nil {
		return Relay{}, fmt.Errorf("relay %s: %w", addr, err)
	}
	if p == (e2e.Pin{}) {
		return Relay{}, fmt.Errorf("relay %s: the pin is all zeros; leave it out where the certificate is publicly trusted", addr)
	}
	r.Pin = p
	return r, nil
}

// String returns the relay as [ParseRelay] reads it.
func (r Relay) String() string {
	if r.Pin == (e2e.Pin{}) {
		return r.Addr
	}
	return r.Addr + "#" + r.Pin.String()
}

// MarshalText returns the relay as [Relay.String] does.
func (r Relay) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the relay as [ParseRelay] does.
func (r *Relay) UnmarshalText(b []byte) error {
	p, err := ParseRelay(string(b))
	if err == nil {
		*r = p
	}
	return err
}

// checkAddr demands an address that net.Dial takes, that is safe to print on
// a terminal, and that has one spelling of its brackets and port.
func checkAddr(addr string) error {
	bad := func(why string) error {
		return fmt.Errorf("%q is not a relay address: %s; write HOST:PORT, for example relay.example.org:4433", addr, why)
	}
	if len(addr) > maxAddr {
		return fmt.Errorf("a relay address has %d bytes, at most %d", len(addr), maxAddr)
	}
	host, port, err := net.SplitHostPort(addr)
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
	if net.JoinHostPort(host, port) != addr {
		return bad("only an IPv6 address stands in brackets")
	}
	return nil
}

func checkRelays(relays []Relay) error {
	if len(relays) < 1 || len(relays) > maxRelays {
		return fmt.Errorf("%d relays given, from 1 to %d are possible", len(relays), maxRelays)
	}
	for _, r := range relays {
		if err := checkAddr(r.Addr); err != nil {
			return err
		}
	}
	return nil
}

func pinned(relays []Relay) bool {
	for _, r := range relays {
		if r.Pin != (e2e.Pin{}) {
			return true
		}
	}
	return false
}

// appendRelays appends: n u8 | n x (length u8 | "host:port") | and, if any
// relay has a pin, n x pin (32, zero where a relay has none).
func appendRelays(b []byte, relays []Relay) []byte {
	b = append(b, byte(len(relays)))
	for _, r := range relays {
		b = append(b, byte(len(r.Addr)))
		b = append(b, r.Addr...)
	}
	if pinned(relays) {
		for _, r := range relays {
			b = append(b, r.Pin[:]...)
		}
	}
	return b
}

// cursor reads fields off the front of b. After a read past the end, short is
// true and every further read gives zeros.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if len(c.b) < n {
		c.b, c.short = nil, true
		return make([]byte, n)
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() int { return int(c.take(1)[0]) }

// relays reads what appendRelays wrote, without checking the addresses.
func (c *cursor) relays(withPins bool) []Relay {
	n := c.u8()
	if n > maxRelays {
		// The caller's checkRelays refuses the count; the rest is not read.
		return make([]Relay, n)
	}
	rs := make([]Relay, n)
	for i := range rs {
		rs[i].Addr = string(c.take(c.u8()))
	}
	if withPins {
		for i := range rs {
			rs[i].Pin = e2e.Pin(c.take(len(e2e.Pin{})))
		}
	}
	return rs
}
