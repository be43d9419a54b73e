package e2e

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
)

// The first byte of a stream says what follows.
const (
	kindControl = 0x01 // TLS
	kindSealed  = 0x02 // a preface and records
)

// Prefaces of sealed streams:
//
//	opener's half:   0x02 | id u64 (< 2^62) | salt (24) | commit (32)
//	acceptor's half: 0x02 | salt (24) | commit (32)
//
// The opener numbers the streams of a session and never uses a number twice.
const (
	openPrefaceLen   = 1 + 8 + saltLen + commitLen
	acceptPrefaceLen = 1 + saltLen + commitLen
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
	if len(b) != openPrefaceLen || b[0] != kindSealed {
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

// verify returns the keys of the opener's half if the preface was made in the
// session with this secret, and ErrSpliced otherwise.
func (p *openPreface) verify(s *suite, session []byte) (*streamName, *half, error) {
	name := &streamName{suite: s, id: p.id, salt: p.salt}
	secret, err := name.openSecret(session)
	if err != nil {
		return nil, nil, err
	}
	commit, err := commitOf(secret)
	if err != nil {
		return nil, nil, err
	}
	if subtle.ConstantTimeCompare(commit, p.commit[:]) != 1 {
		return nil, nil, ErrSpliced
	}
	h, err := newHalf(s, secret)
	return name, h, err
}

// openHalf makes the opener's half of stream id: its name, its keys and its preface.
func openHalf(s *suite, session []byte, id uint64) (*streamName, *half, []byte, error) {
	name := &streamName{suite: s, id: id}
	rand.Read(name.salt[:])
	secret, err := name.openSecret(session)
	if err != nil {
		return nil, nil, nil, err
	}
	preface := append(make([]byte, 0, openPrefaceLen), kindSealed)
	preface = binary.BigEndian.AppendUint64(preface, id)
	preface = append(preface, name.salt[:]...)
	h, preface, err := finishHalf(s, secret, preface)
	return name, h, preface, err
}

// acceptHalf makes the acceptor's half of a stream: its keys and its preface.
func acceptHalf(name *streamName, session []byte) (*half, []byte, error) {
	var salt [saltLen]byte
	rand.Read(salt[:])
	secret, err := name.acceptSecret(session, salt)
	if err != nil {
		return nil, nil, err
	}
	preface := append(make([]byte, 0, acceptPrefaceLen), kindSealed)
	preface = append(preface, salt[:]...)
	return finishHalf(name.suite, secret, preface)
}

func finishHalf(s *suite, secret, preface []byte) (*half, []byte, error) {
	commit, err := commitOf(secret)
	if err != nil {
		return nil, nil, err
	}
	h, err := newHalf(s, secret)
	return h, append(preface, commit...), err
}

// verifyAccept returns the keys of the acceptor's half if b is the preface
// that the acceptor of the named stream made, and ErrSpliced otherwise.
func verifyAccept(name *streamName, session, b []byte) (*half, error) {
	if len(b) != acceptPrefaceLen || b[0] != kindSealed {
		return nil, ErrSpliced
	}
	secret, err := name.acceptSecret(session, [saltLen]byte(b[1:]))
	if err != nil {
		return nil, err
	}
	commit, err := commitOf(secret)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(commit, b[1+saltLen:]) != 1 {
		return nil, ErrSpliced
	}
	return newHalf(name.suite, secret)
}
