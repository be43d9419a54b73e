package e2e

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
)

// maxJoinStreams is how many streams a JOIN can list.
const maxJoinStreams = (MaxFramePayload - joinLen) / 8

const (
	sessionIDLen = 16
	joinLen      = sessionIDLen + secretLen + 8 + 2
)

// join is the first frame of a device on a further link. It shows that the
// device knows the session's secret, and says which streams it still has: those
// below next that are not listed are over.
//
//	session (16) | mac (32) | next stream id u64 | count u16 | count x id u64
//
// The agent answers with WELCOME, or with GOAWAY if it has no such session.
type join struct {
	session [sessionIDLen]byte
	mac     [secretLen]byte
	next    uint64
	streams []uint64
}

func (j *join) payload() []byte {
	b := append(make([]byte, 0, joinLen+8*len(j.streams)), j.session[:]...)
	b = append(b, j.mac[:]...)
	b = binary.BigEndian.AppendUint64(b, j.next)
	b = binary.BigEndian.AppendUint16(b, uint16(len(j.streams)))
	for _, id := range j.streams {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return b
}

func parseJoin(p []byte) (j join, err error) {
	if len(p) < joinLen || (len(p)-joinLen)%8 != 0 || int(binary.BigEndian.Uint16(p[joinLen-2:])) != (len(p)-joinLen)/8 {
		return j, fmt.Errorf("%w: JOIN of %d bytes", ErrFrame, len(p))
	}
	copy(j.session[:], p)
	copy(j.mac[:], p[sessionIDLen:])
	j.next = binary.BigEndian.Uint64(p[sessionIDLen+secretLen:])
	for p = p[joinLen:]; len(p) > 0; p = p[8:] {
		j.streams = append(j.streams, binary.BigEndian.Uint64(p))
	}
	return j, nil
}

// sessionID is a name of the session that tells nothing about its secret.
func sessionID(secret []byte) (id [sessionIDLen]byte, err error) {
	b, err := expand(secret, "session", nil, sessionIDLen)
	copy(id[:], b)
	return id, err
}

// joinMAC shows on the link with this binding that its sender knows the secret.
func joinMAC(secret, binding []byte) (mac [secretLen]byte, err error) {
	b, err := expand(secret, "join", binding, secretLen)
	copy(mac[:], b)
	return mac, err
}

// verify reports whether the JOIN was made in the session with this secret, on
// the link with this binding.
func (j *join) verify(secret, binding []byte) bool {
	mac, err := joinMAC(secret, binding)
	return err == nil && subtle.ConstantTimeCompare(mac[:], j.mac[:]) == 1
}

// over reports whether the device is done with a stream.
func (j *join) over(id uint64) bool { return id < j.next && !slices.Contains(j.streams, id) }
