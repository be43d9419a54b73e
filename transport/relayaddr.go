package transport

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// KeyPin is the SHA-256 of a public key as DER SubjectPublicKeyInfo.
type KeyPin [sha256.Size]byte

// String returns the pin in base64url without padding, 43 characters.
func (p KeyPin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// Relay says where a relay is and how it proves that it is the one.
type Relay struct {
	Addr string  // host:port
	Pin  *KeyPin // of the relay's key; nil: its certificate must be publicly trusted for the host
}

// ParseRelay parses HOST:PORT or HOST:PORT#PIN.
func ParseRelay(s string) (Relay, error) {
	addr, pin, pinned := strings.Cut(s, "#")
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return Relay{}, fmt.Errorf("relay %q is not HOST:PORT or HOST:PORT#PIN, like relay.example.org:4433", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Relay{}, fmt.Errorf("relay %q: %q is not a port from 1 to 65535", s, port)
	}
	r := Relay{Addr: addr}
	if !pinned {
		return r, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(pin)
	if err != nil || len(b) != len(KeyPin{}) {
		return Relay{}, fmt.Errorf("relay %q: the part behind # is not a pin: a pin is 43 characters, as `blindrelay serve` prints them", s)
	}
	p := KeyPin(b)
	r.Pin = &p
	return r, nil
}

// String returns the form that ParseRelay reads.
func (r Relay) String() string {
	if r.Pin == nil {
		return r.Addr
	}
	return r.Addr + "#" + r.Pin.String()
}

// PinOf returns the pin of a certificate's key.
func PinOf(cert *x509.Certificate) KeyPin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// ErrWrongRelay says that who answered at the relay's address holds another
// key than the pinned one.
var ErrWrongRelay = errors.New("the relay's key is not the one behind # in its address: either the relay has a new key (ask its operator for the new address line), or somebody else answers there")

// clientTLS is the TLS profile of the hop at an endpoint. cert is the agent's
// route certificate, nil for a device, which shows no identity.
func (r Relay) clientTLS(cert *tls.Certificate) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{wire.ALPN},
		ServerName:             host,
		SessionTicketsDisabled: true, // a resumed session would tie a device's visits together
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	if r.Pin != nil {
		pin := *r.Pin
		c.InsecureSkipVerify = true // the pin stands in for names and authorities
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrWrongRelay
			}
			got := PinOf(s.PeerCertificates[0])
			if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
				return ErrWrongRelay
			}
			return nil
		}
	}
	return c, nil
}
