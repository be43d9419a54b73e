package e2e

// This file is no part of any program that is shipped: the canary test adds it
// to package crypto/e2e when it builds endpoints for itself, and renames the
// functions that it stands in for. It writes every secret to a file, one line
// "NAME HEX" for each.

import (
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
)

var secrets = sync.OnceValue(func() *os.File {
	f, err := os.OpenFile(os.Getenv("CANARY_SECRETS"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	return f
})

func tell(name string, value []byte) {
	if _, err := fmt.Fprintf(secrets(), "%s %x\n", strings.ReplaceAll(name, " ", "_"), value); err != nil {
		panic(err)
	}
}

// expand derives everything of a session and its streams. Two of its results
// are in prefaces, for the relay to see.
func expand(secret []byte, label string, context []byte, n int) ([]byte, error) {
	b, err := expandUntold(secret, label, context, n)
	if label == "commit" || label == "carrier" {
		tell("public/"+label, b)
	} else {
		tell("derived/"+label, b)
	}
	return b, err
}

func export(cs tls.ConnectionState, label string, server, device Pin) ([]byte, error) {
	b, err := exportUntold(cs, label, server, device)
	tell("exported/"+label, b)
	return b, err
}

func NewIdentity(key crypto.Signer) (*Identity, error) {
	tell("identity", key.(ed25519.PrivateKey).Seed())
	return newIdentityUntold(key)
}

func baseTLS(id *Identity, alpn ...string) *tls.Config {
	c := baseTLSUntold(id, alpn...)
	c.KeyLogWriter = keyLog{}
	return c
}

// keyLog takes lines "LABEL RANDOM SECRET" of the handshake with the other
// endpoint.
type keyLog struct{}

func (keyLog) Write(line []byte) (int, error) {
	f := strings.Fields(string(line))
	secret, err := hex.DecodeString(f[2])
	tell("tls/"+f[0], secret)
	return len(line), err
}

// seal tells a sample of each record as it goes out.
func (h *half) seal(b []byte, kind byte, content []byte, padding int) ([]byte, error) {
	start := len(b) + recordHeaderLen
	b, err := h.sealUntold(b, kind, content, padding)
	if err == nil && len(content) > 64 {
		tell("sample/record", b[start:start+24])
	}
	return b, err
}
