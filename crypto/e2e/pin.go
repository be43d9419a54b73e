package e2e

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
)

// Pin names an endpoint by its key: the SHA-256 of the DER encoding of the
// public key's SubjectPublicKeyInfo (RFC 7469, section 2.4). It is not secret.
type Pin [sha256.Size]byte

// PinOf returns the pin of a public key. It fails for kinds of keys that have
// no SubjectPublicKeyInfo.
func PinOf(pub crypto.PublicKey) (Pin, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Pin{}, fmt.Errorf("encode the public key: %w", err)
	}
	return sha256.Sum256(spki), nil
}

// String returns the pin as 43 characters of base64url without padding.
func (p Pin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// ParsePin parses what [Pin.String] returns, and nothing else.
func ParsePin(s string) (Pin, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(Pin{}) || Pin(b).String() != s {
		return Pin{}, fmt.Errorf("%q is not a pin: a pin is 43 letters, digits, '-' and '_'; was it copied whole?", s)
	}
	return Pin(b), nil
}

// addr is the net.Addr of an endpoint: its pin is the only name it has here.
type addr Pin

func (addr) Network() string  { return "blindrelay" }
func (a addr) String() string { return Pin(a).String() }
