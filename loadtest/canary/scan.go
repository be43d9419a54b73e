package canary

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

const (
	// pieceLen is how many bytes of a secret make a piece that is searched for
	// by itself, so that half a key is found too.
	pieceLen = 16
	// MinLen is how many bytes a secret needs: shorter ones occur by chance.
	MinLen = 12
	// tableBits is the binary logarithm of the number of entries in a
	// Scanner's table, 2 MiB in all.
	tableBits = 24
)

// Scanner holds what is searched for. The zero Scanner is empty and ready.
// Sweeps may run beside each other once all is added.
type Scanner struct {
	// table has a bit for the hash of each pattern's first four bytes: few
	// positions of the scanned bytes have to be looked at more closely.
	table    []uint64
	patterns map[uint32][]pattern // by their first four bytes
	longest  int
}

// pattern is one spelling of a piece of a secret.
type pattern struct {
	text []byte
	mark Mark
}

// Mark names what was found: a secret and how it was spelled.
type Mark struct{ Secret, Spelling string }

// Found counts what was found.
type Found map[Mark]int64

// Secrets returns how many times each secret was found, in whatever spelling.
func (f Found) Secrets() map[string]int64 {
	sums := make(map[string]int64)
	for m, n := range f {
		sums[m.Secret] += n
	}
	return sums
}

// Add adds a secret of at least MinLen bytes: raw, in hexadecimal, in base64 at
// every alignment, in UTF-16. Of one longer than 16 bytes each piece of 16 is
// searched for by itself.
func (s *Scanner) Add(name string, secret []byte) error {
	return s.add(name, secret, spellings())
}

// AddRaw adds bytes that are searched for as they are.
func (s *Scanner) AddRaw(name string, value []byte) error {
	return s.add(name, value, spellings()[:1])
}

func (s *Scanner) add(name string, secret []byte, ways []spelling) error {
	if len(secret) < MinLen {
		return fmt.Errorf("%s has %d bytes, which can occur by chance: give at least %d", name, len(secret), MinLen)
	}
	for _, piece := range pieces(secret) {
		for _, sp := range ways {
			for _, text := range sp.spell(piece) {
				s.insert(pattern{text, Mark{name, sp.name}})
			}
		}
	}
	return nil
}

// pieces cuts a secret into pieces of pieceLen bytes, the last of which ends
// with it.
func pieces(b []byte) [][]byte {
	if len(b) <= pieceLen {
		return [][]byte{b}
	}
	var all [][]byte
	for i := 0; i < len(b); i += pieceLen {
		i = min(i, len(b)-pieceLen)
		all = append(all, b[i:i+pieceLen])
	}
	return all
}

// insert adds a pattern unless another secret's is the same.
func (s *Scanner) insert(p pattern) {
	if s.patterns == nil {
		s.patterns = make(map[uint32][]pattern)
		s.table = make([]uint64, 1<<tableBits/64)
	}
	first := binary.LittleEndian.Uint32(p.text)
	for _, o := range s.patterns[first] {
		if bytes.Equal(o.text, p.text) {
			return
		}
	}
	s.patterns[first] = append(s.patterns[first], p)
	s.longest = max(s.longest, len(p.text))
	h := hash(first)
	s.table[h/64] |= 1 << (h % 64)
}

// hash spreads four bytes over the table.
func hash(first uint32) uint32 { return first * 0x9e3779b1 >> (32 - tableBits) }

// Patterns returns how many spellings of pieces are searched for.
func (s *Scanner) Patterns() int {
	n := 0
	for _, same := range s.patterns {
		n += len(same)
	}
	return n
}

// Sweep scans bytes that come in parts, as if they were one sequence.
type Sweep struct {
	s     *Scanner
	found Found
	bytes int64
	buf   []byte // ends with the last longest-1 bytes of what was written
}

// Sweep begins a search.
func (s *Scanner) Sweep() *Sweep { return &Sweep{s: s, found: make(Found)} }

// Found returns what was found so far.
func (w *Sweep) Found() Found { return w.found }

// Bytes returns how many bytes were scanned.
func (w *Sweep) Bytes() int64 { return w.bytes }

// Gap says that the next bytes do not follow the last ones.
func (w *Sweep) Gap() { w.buf = w.buf[:0] }

// Write scans the next bytes. It always takes all of them.
func (w *Sweep) Write(p []byte) (int, error) {
	w.bytes += int64(len(p))
	if keep := w.s.longest - 1; len(w.buf) > keep {
		w.buf = append(w.buf[:0], w.buf[len(w.buf)-max(keep, 0):]...)
	}
	old := len(w.buf)
	w.buf = append(w.buf, p...)
	w.scan(old)
	return len(p), nil
}

// scan counts the patterns in buf that end behind its first old bytes.
func (w *Sweep) scan(old int) {
	s, b := w.s, w.buf
	if s.table == nil {
		return
	}
	for i := 0; i+4 <= len(b); i++ {
		first := binary.LittleEndian.Uint32(b[i:])
		h := hash(first)
		if s.table[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, p := range s.patterns[first] {
			if i+len(p.text) > old && bytes.HasPrefix(b[i:], p.text) {
				w.found[p.mark]++
			}
		}
	}
}
