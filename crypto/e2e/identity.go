package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Identity is an endpoint's private key with the certificate that TLS needs
// around it. The certificate signs itself, carries no name and never expires
// (clocks of televisions are wrong): only the key counts. An Identity is
// immutable and may be shared.
type Identity struct {
	cert tls.Certificate
	pin  Pin
}

// NewIdentity makes an identity of a private key, Ed25519 or ECDSA P-256.
func NewIdentity(key crypto.Signer) (*Identity, error) {
	if key == nil {
		return nil, errors.New("an identity needs a private key")
	}
	if err := checkKey(key.Public()); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // "no well-defined expiration", RFC 5280, section 4.1.2.5
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate of the key: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a certificate of the key: %w", err)
	}
	return &Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		pin:  pinOf(leaf),
	}, nil
}

// Pin returns the identity's pin.
func (id *Identity) Pin() Pin { return id.pin }

func pinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// checkKey refuses every kind of key but the two of the protocol.
func checkKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	}
	return fmt.Errorf("a %T cannot be an identity: use Ed25519 or ECDSA P-256", pub)
}

// Certificate returns the certificate with its key, for a TLS profile of the
// caller's: an agent shows its route key to relays in one.
func (id *Identity) Certificate() tls.Certificate { return id.cert }
