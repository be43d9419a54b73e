package e2e

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	secretLen = 32
	saltLen   = 24
	commitLen = 32
	nonceLen  = 12
	tagLen    = 16
)

// suite is an AEAD that TLS 1.3 can negotiate; sealed streams use the one that
// the session's handshake chose.
type suite struct {
	id     uint16
	keyLen int
	aead   func(key []byte) (cipher.AEAD, error)
}

// suiteOf returns the suite with the number of TLS, or nil.
func suiteOf(id uint16) *suite {
	switch id {
	case tls.TLS_AES_128_GCM_SHA256:
		return &suite{id, 16, newGCM}
	case tls.TLS_AES_256_GCM_SHA384:
		return &suite{id, 32, newGCM}
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return &suite{id, 32, chacha20poly1305.New}
	}
	return nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// expand is X of the protocol: HKDF-Expand-SHA256 (RFC 5869) with the
// protocol's name, the label and a context as info.
func expand(secret []byte, label string, context []byte, n int) ([]byte, error) {
	b, err := hkdf.Expand(sha256.New, secret, alpnSession+" "+label+"\x00"+string(context), n)
	if err != nil {
		return nil, fmt.Errorf("derive %s: %w", label, err)
	}
	return b, nil
}

// openerDevice marks the device as the opener of a stream in the key
// derivation. Only devices open streams in this version.
const openerDevice = 'D'

// streamName is what the keys of both halves of a stream depend on, beside the
// session's secret. The relay never sees it as a header that it could edit.
type streamName struct {
	suite *suite
	id    uint64
	salt  [saltLen]byte // of the opener
}

func (n *streamName) context() []byte {
	b := make([]byte, 0, 2+1+8+2*saltLen)
	b = binary.BigEndian.AppendUint16(b, n.suite.id)
	b = append(b, openerDevice)
	b = binary.BigEndian.AppendUint64(b, n.id)
	return append(b, n.salt[:]...)
}

// openSecret is the first secret of the opener's half.
func (n *streamName) openSecret(session []byte) ([]byte, error) {
	return expand(session, "open", n.context(), secretLen)
}

// acceptSecret is the first secret of the acceptor's half.
func (n *streamName) acceptSecret(session []byte, salt [saltLen]byte) ([]byte, error) {
	return expand(session, "accept", append(n.context(), salt[:]...), secretLen)
}

// commitOf is what a half's preface carries to prove which stream it belongs
// to, before any record is read.
func commitOf(secret []byte) ([]byte, error) { return expand(secret, "commit", nil, commitLen) }
