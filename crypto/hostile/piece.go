package hostile

import "encoding/binary"

// What a relay can tell apart in a half of a stream. It sees where each begins
// and ends, and not what is in it.
type kind int

const (
	kindByte    kind = iota // 0x01, before TLS
	kindTLS                 // a TLS record (RFC 8446, section 5.1), header included
	kindPreface             // of a sealed half's carrier
	kindRecord              // a sealed record, header included
	kindFIN                 // the half's end; no bytes
	kindRest                // bytes that are none of these
)

// piece is one of them.
type piece struct {
	kind  kind
	index int // of a record: its number; of others: among those of its kind in its half, from 0
	b     []byte
}

// The lengths of crypto/DESIGN.md, section 5.
const (
	openLen        = 1 + 8 + 24 + 32
	acceptLen      = 1 + 24 + 32
	furtherLen     = 4 + 4 + 8 + 32
	recordHeader   = 2 + 6
	tlsHeader      = 1 + 2 + 2
	firstByteTLS   = 0x01
	firstByteOpen  = 0x02
	firstByteAgain = 0x03
)

// splitter cuts a half into pieces.
type splitter struct {
	up      bool
	begun   bool
	tls     bool
	counts  [kindRest + 1]int
	pending []byte
}

// next takes the next whole piece.
func (s *splitter) next() (piece, bool) {
	k, n := s.size()
	if n == 0 || len(s.pending) < n {
		return piece{}, false
	}
	s.begun = true
	s.tls = s.tls || k == kindByte || k == kindTLS
	return s.take(k, n), true
}

func (s *splitter) take(k kind, n int) piece {
	p := piece{k, s.counts[k], s.pending[:n:n]}
	if k == kindRecord {
		p.index = int(binary.BigEndian.Uint64(p.b) & (1<<48 - 1))
	}
	s.counts[k]++
	s.pending = s.pending[n:]
	return p
}

// size returns the next piece's kind and length, 0 if that is not known yet.
func (s *splitter) size() (kind, int) {
	b := s.pending
	if len(b) == 0 {
		return 0, 0
	}
	if !s.begun {
		further := 0
		if b[0] == firstByteAgain {
			further = furtherLen
		}
		switch {
		case s.up && b[0] == firstByteTLS:
			return kindByte, 1
		case s.up:
			return kindPreface, openLen + further
		case b[0] == firstByteOpen || b[0] == firstByteAgain:
			return kindPreface, acceptLen + further
		}
	}
	switch {
	case s.tls || !s.begun:
		if len(b) < tlsHeader {
			return 0, 0
		}
		return kindTLS, tlsHeader + int(binary.BigEndian.Uint16(b[3:]))
	case len(b) < recordHeader:
		return 0, 0
	}
	return kindRecord, recordHeader + int(binary.BigEndian.Uint16(b))
}

// rest takes what is no whole piece.
func (s *splitter) rest() piece { return s.take(kindRest, len(s.pending)) }
