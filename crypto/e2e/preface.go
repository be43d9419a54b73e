package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
)

// The first byte of a stream says what follows.
const (
	kindControl = 0x01 // TLS
	kindSealed  = 0x02 // a preface and records: a stream's first carrier
	kindResumed = 0x03 // likewise, of a further carrier
)

// Prefaces of sealed streams:
//
//	opener's half:   0x02 | id u64 (< 2^62) | salt (24) | commit (32)
//	acceptor's half: 0x02 | salt (24) | commit (32)
//
// The opener numbers the streams of a session and never uses a number twice.
// On a further carrier both begin with 0x03 and go on with
//
//	carrier u32 | gone u32 | next u64 | mac (32)
//
// where carrier counts a stream's carriers from 0, which is the first one, those
// before gone are gone, next is the record that this side wants next of the
// other half, and mac shows that this side knows the half and the link.
const (
	openPrefaceLen   = 1 + 8 + saltLen + commitLen
	acceptPrefaceLen = 1 + saltLen + commitLen
	resumptionLen    = 4 + 4 + 8 + secretLen
	maxStreamID      = 1<<62 - 1
)

// openPreface is the parsed preface of an opener's half. Nothing in it is
// authentic before its commit was verified.
type openPreface struct {
	id     uint64
	salt   [saltLen]byte
	commit [commitLen]byte
}

func parseOpenPreface(b []byte) (openPreface, error) {
	var p openPreface
	if len(b) < openPrefaceLen || b[0] != kindSealed && b[0] != kindResumed {
		return p, ErrSpliced
	}
	p.id = binary.BigEndian.Uint64(b[1:])
	copy(p.salt[:], b[9:])
	copy(p.commit[:], b[9+saltLen:])
	if p.id > maxStreamID {
		return p, ErrSpliced
	}
	return p, nil
}

// sealedHalf is what both ends derive for one half of a stream.
type sealedHalf struct {
	secret []byte // of its first epoch
	commit []byte
	resume []byte // what later carriers' prefaces are verified with
}

func deriveHalf(secret []byte) (h sealedHalf, err error) {
	h.secret = secret
	if h.commit, err = commitOf(secret); err != nil {
		return h, err
	}
	h.resume, err = expand(secret, "resume", nil, secretLen)
	return h, err
}

// verify returns the stream's name and its opener's half if the preface was
// made in the session with this secret, and ErrSpliced otherwise.
func (p *openPreface) verify(s *suite, session []byte) (*streamName, sealedHalf, error) {
	name := &streamName{suite: s, id: p.id, salt: p.salt}
	secret, err := name.openSecret(session)
	if err != nil {
		return nil, sealedHalf{}, err
	}
	h, err := deriveHalf(secret)
	if err != nil {
		return nil, h, err
	}
	if subtle.ConstantTimeCompare(h.commit, p.commit[:]) != 1 {
		return nil, h, ErrSpliced
	}
	return name, h, nil
}

// openHalf makes the opener's half of stream id and its preface.
func openHalf(s *suite, session []byte, id uint64) (*streamName, sealedHalf, []byte, error) {
	name := &streamName{suite: s, id: id}
	rand.Read(name.salt[:])
	secret, err := name.openSecret(session)
	if err != nil {
		return nil, sealedHalf{}, nil, err
	}
	h, err := deriveHalf(secret)
	preface := append(make([]byte, 0, openPrefaceLen), kindSealed)
	preface = binary.BigEndian.AppendUint64(preface, id)
	preface = append(preface, name.salt[:]...)
	return name, h, append(preface, h.commit...), err
}

// acceptHalf makes the acceptor's half of a stream and its preface.
func acceptHalf(name *streamName, session []byte) (sealedHalf, []byte, error) {
	var salt [saltLen]byte
	rand.Read(salt[:])
	secret, err := name.acceptSecret(session, salt)
	if err != nil {
		return sealedHalf{}, nil, err
	}
	h, err := deriveHalf(secret)
	preface := append(make([]byte, 0, acceptPrefaceLen), kindSealed)
	preface = append(preface, salt[:]...)
	return h, append(preface, h.commit...), err
}

// verifyAccept returns the acceptor's half if b is the preface, of either
// kind, that the acceptor of the named stream made, and ErrSpliced otherwise.
func verifyAccept(name *streamName, session, b []byte) (sealedHalf, error) {
	secret, err := name.acceptSecret(session, [saltLen]byte(b[1:]))
	if err != nil {
		return sealedHalf{}, err
	}
	h, err := deriveHalf(secret)
	if err != nil {
		return h, err
	}
	if subtle.ConstantTimeCompare(h.commit, b[1+saltLen:acceptPrefaceLen]) != 1 {
		return h, ErrSpliced
	}
	return h, nil
}

// resumption is what the preface of a further carrier says beside the stream's
// first preface.
type resumption struct {
	number uint32 // of the carrier
	gone   uint32 // carriers with lower numbers are gone
	next   uint64 // number of the record that this side wants next
}

// resumed turns a stream's first preface into that of a further carrier.
func resumed(preface, resume, binding []byte, r resumption) ([]byte, error) {
	b := append(make([]byte, 0, len(preface)+resumptionLen), preface...)
	b[0] = kindResumed
	b = r.append(b)
	mac, err := r.mac(resume, binding)
	return append(b, mac...), err
}

// verifyResumption reads what follows the first preface's fields in that of a
// further carrier. The link's binding is in it, so that it is worth nothing on
// another link.
func verifyResumption(b, resume, binding []byte) (resumption, error) {
	r := resumption{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])}
	mac, err := r.mac(resume, binding)
	if err != nil {
		return r, err
	}
	if subtle.ConstantTimeCompare(mac, b[resumptionLen-secretLen:resumptionLen]) != 1 {
		return r, ErrSpliced
	}
	return r, nil
}

func (r resumption) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, r.number)
	b = binary.BigEndian.AppendUint32(b, r.gone)
	return binary.BigEndian.AppendUint64(b, r.next)
}

func (r resumption) mac(resume, binding []byte) ([]byte, error) {
	return expand(resume, "carrier", r.append(bytes.Clone(binding)), secretLen)
}
