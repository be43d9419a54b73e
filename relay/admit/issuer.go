package admit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Issuer is a public key whose tickets a relay takes: Ed25519 for EdDSA, P-256
// for ES256.
type Issuer struct {
	id  string // "kid" (RFC 7517, section 4.5); "" fits any
	key crypto.PublicKey
}

// IssuerOf returns the public half of a signing key.
func IssuerOf(key crypto.Signer) (Issuer, error) { return newIssuer("", key.Public()) }

func newIssuer(id string, key crypto.PublicKey) (Issuer, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return Issuer{id, k}, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return Issuer{id, k}, nil
		}
	}
	return Issuer{}, errors.New("tickets are signed with Ed25519 or P-256, and this is a key of another kind")
}

func (i Issuer) method() jwt.SigningMethod {
	if _, ok := i.key.(ed25519.PublicKey); ok {
		return jwt.SigningMethodEdDSA
	}
	return jwt.SigningMethodES256
}

// String returns the key as DER SubjectPublicKeyInfo in base64: what stands in
// a PEM file between its first and last line.
func (i Issuer) String() string {
	der, err := x509.MarshalPKIXPublicKey(i.key)
	if err != nil {
		panic(err) // newIssuer takes no other kind
	}
	return base64.StdEncoding.EncodeToString(der)
}

// ParseIssuer reads what String returns.
func ParseIssuer(text string) (Issuer, error) {
	der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	var key crypto.PublicKey
	if err == nil {
		key, err = x509.ParsePKIXPublicKey(der)
	}
	if err != nil {
		return Issuer{}, errors.New("this is not an issuer: write the public key as `blindrelay ticket new` prints it, which is that of `openssl pkey -pubout` without its first and last line")
	}
	return newIssuer("", key)
}

// ParseKey reads a private key that signs tickets: PEM, PKCS #8 (RFC 5958),
// Ed25519 or P-256.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it holds no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("it is not a PKCS #8 private key, as `openssl genpkey -algorithm ed25519` makes them")
	}
	_, err = IssuerOf(signer)
	return signer, err
}

// jwk is one key of a JSON Web Key Set (RFC 7517), as RFC 7518, section 6.2,
// and RFC 8037, section 2, have it.
type jwk struct {
	Type    string          `json:"kty"`
	Curve   string          `json:"crv"`
	ID      string          `json:"kid"`
	Use     string          `json:"use"`
	X       string          `json:"x"`
	Y       string          `json:"y"`
	Private json.RawMessage `json:"d"`
}

// ParseJWKS reads the keys of a JSON Web Key Set that tickets can be signed
// with, and passes over those for anything else. There must be at least one,
// and no private one.
func ParseJWKS(b []byte) ([]Issuer, error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("this is not a JSON Web Key Set: %w", err)
	}
	var issuers []Issuer
	for n, k := range set.Keys {
		if k.Private != nil {
			return nil, fmt.Errorf("key %d is a private one: a relay is given public keys alone, take this one out of use", n+1)
		}
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		key, err := k.public()
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", n+1, err)
		}
		if key == nil {
			continue
		}
		i, err := newIssuer(k.ID, key)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", n+1, err)
		}
		issuers = append(issuers, i)
	}
	if len(issuers) == 0 {
		return nil, errors.New("it holds no key for tickets: those are of kty OKP with crv Ed25519, or kty EC with crv P-256")
	}
	return issuers, nil
}

// public returns nil for a key of another kind.
func (k jwk) public() (crypto.PublicKey, error) {
	x, errX := base64.RawURLEncoding.DecodeString(k.X)
	y, errY := base64.RawURLEncoding.DecodeString(k.Y)
	switch {
	case k.Type == "OKP" && k.Curve == "Ed25519":
		if errX != nil || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("its x is not 32 bytes in base64url")
		}
		return ed25519.PublicKey(x), nil
	case k.Type == "EC" && k.Curve == "P-256":
		if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
			return nil, errors.New("its x and y are not 32 bytes each in base64url")
		}
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return nil, errors.New("its x and y are no point of the curve")
		}
		return key, nil
	}
	return nil, nil
}
