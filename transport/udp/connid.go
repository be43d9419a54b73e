package udp

import (
	"crypto/rand"

	"github.com/quic-go/quic-go"
)

// connIDLen is the length of the server's connection IDs in bytes.
const connIDLen = 8

// generator makes connection IDs of which the first byte, modulo sockets, is
// index: what the steering filter computes (RFC 9000 section 5.1 leaves the
// content to the server; the index says only on which core a packet is read).
type generator struct{ index, sockets int }

func newGenerator(index, sockets int) quic.ConnectionIDGenerator {
	return generator{index, sockets}
}

func (g generator) ConnectionIDLen() int { return connIDLen }

// GenerateConnectionID returns an ID that is random in all but the index: its
// first byte is uniform among the 256/sockets values that are used for it.
func (g generator) GenerateConnectionID() (quic.ConnectionID, error) {
	values := 256 / g.sockets // of the first byte, per socket
	var id [connIDLen]byte
	for {
		rand.Read(id[:]) // never fails
		if first := int(id[0]); first < values*g.sockets {
			id[0] = byte(first - first%g.sockets + g.index)
			return quic.ConnectionIDFromBytes(id[:]), nil
		}
	}
}
