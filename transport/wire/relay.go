package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
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
	// TCPPort is where the relay takes TLS on TCP; 0: the port of Addr.
	TCPPort uint16
	// IP is where to dial, for who has resolved the host of Addr already; the
	// zero value lets the dialer do it. It is not part of the text.
	IP netip.Addr
}

// ParseRelay reads HOST:PORT[/TCPPORT][#PIN], PIN as `blindrelay serve` prints
// it. There is one text for each relay.
func ParseRelay(s string) (Relay, error) {
	address, pin, pinned := strings.Cut(s, "#")
	addr, tcp, other := strings.Cut(address, "/")
	r := Relay{Addr: addr}
	if err := r.Check(); err != nil {
		return Relay{}, err
	}
	if other {
		n, ok := port(tcp)
		if !ok {
			return Relay{}, fmt.Errorf("relay %s: the TCP port behind / must be a number from 1 to 65535", addr)
		}
		r.TCPPort = n
		if err := r.Check(); err != nil {
			return Relay{}, err
		}
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

// Address returns the relay's text without its pin: HOST:PORT[/TCPPORT], at most
// MaxRelayAddr + 6 bytes.
func (r Relay) Address() string {
	if r.TCPPort == 0 {
		return r.Addr
	}
	return r.Addr + "/" + strconv.Itoa(int(r.TCPPort))
}

// TCPAddr returns host:port of where the relay takes TLS on TCP, if it does.
func (r Relay) TCPAddr() string {
	host, _, err := net.SplitHostPort(r.Addr)
	if r.TCPPort == 0 || err != nil {
		return r.Addr
	}
	return net.JoinHostPort(host, strconv.Itoa(int(r.TCPPort)))
}

// String returns the text that ParseRelay reads.
func (r Relay) String() string {
	if !r.Pinned() {
		return r.Address()
	}
	return r.Address() + "#" + r.Pin.String()
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
	host, udp, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return bad("it has no host and port")
	}
	n, ok := port(udp)
	if !ok {
		return bad("the port must be a number from 1 to 65535")
	}
	if n == r.TCPPort {
		return fmt.Errorf("relay %s: the TCP port is the same one, leave /%d out", r.Addr, n)
	}
	if host == "" {
		return bad("the host is missing")
	}
	for _, c := range []byte(host) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(".-_:", c) >= 0) {
			return bad("the host has a character that host names do not have")
		}
	}
	if net.JoinHostPort(host, udp) != r.Addr {
		return bad("only an IPv6 address stands in brackets")
	}
	return nil
}

// port reads a port in its one spelling.
func port(s string) (n uint16, ok bool) {
	v, err := strconv.ParseUint(s, 10, 16)
	return uint16(v), err == nil && v != 0 && strconv.FormatUint(v, 10) == s
}
