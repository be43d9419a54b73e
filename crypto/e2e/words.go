package e2e

import (
	"crypto/tls"
	_ "embed" // the word list
	"encoding/binary"
	"slices"
	"strings"
	"time"
)

// People compare six words: 66 bits, 11 of each word.
const (
	wordCount = 6
	// WordsLen is how many bytes Words takes.
	WordsLen = (11*wordCount + 7) / 8
)

// wordList holds 2048 words, one a line: the English list of BIP 39, which is
// made to be read out and understood. words.txt.license has its license.
//
//go:embed words.txt
var wordList string

// Proof is what people compare to know that nobody stands between the two ends
// of their session: both ends compute the same words, and the ends of two
// sessions that somebody has joined do not.
type Proof struct {
	Server Pin // the agent's
	Device Pin
	Suite  uint16      // of TLS 1.3 (RFC 8446, appendix B.4)
	Group  tls.CurveID // of the key exchange
	Since  time.Time

	code [WordsLen]byte
}

// prove makes the proof of a session from its handshake, which is complete and
// verified.
func prove(secret []byte, cs tls.ConnectionState, server, device Pin) (Proof, error) {
	p := Proof{Server: server, Device: device, Suite: cs.CipherSuite, Group: cs.CurveID}
	c := binary.BigEndian.AppendUint16(nil, p.Suite)
	c = binary.BigEndian.AppendUint16(c, uint16(p.Group))
	c = append(append(c, server[:]...), device[:]...)
	b, err := expand(secret, "words", c, len(p.code))
	copy(p.code[:], b)
	return p, err
}

// Words returns six words with blanks between. They are made of the session's
// secret, both pins, the suite and the group, and stay the same for as long as
// the session lives. They are not secret.
func (p Proof) Words() string { return Words(p.code) }

// Words writes the first 66 bits of code, which both ends of a conversation have
// derived from it, as six words with blanks between. Its last six bits say
// nothing.
func Words(code [WordsLen]byte) string {
	list := strings.Fields(wordList)
	words := make([]string, wordCount)
	left := code[:]
	var bits uint32 // its lowest n are not used up
	n := 0
	for i := range words {
		for ; n < 11; n += 8 {
			bits = bits<<8 | uint32(left[0])
			left = left[1:]
		}
		n -= 11
		words[i] = list[bits>>n&2047]
	}
	return strings.Join(words, " ")
}

// Proof returns what to compare with what the agent shows. It says something
// once [Session.Welcome] has returned nil.
func (s *Session) Proof() Proof { return s.proof }

// Proofs returns what to compare with what the devices show: of every live
// session whose device was admitted, the oldest first.
func (s *Server) Proofs() []Proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Proof
	for v := range s.sessions {
		if !v.ended.Load() && v.maxStreams.Load() > 0 {
			all = append(all, v.proof)
		}
	}
	slices.SortFunc(all, func(a, b Proof) int { return a.Since.Compare(b.Since) })
	return all
}
