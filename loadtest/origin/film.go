package origin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// Film is content that anybody who knows its seed can verify: the eight bytes
// at offset 8i are a hash of the seed and i. It implements io.ReaderAt.
type Film struct {
	Seed uint64
	Size int64 // bytes
}

// golden is SplitMix64's increment, 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// mix is SplitMix64's finalizer (Steele, Lea, Flood, "Fast splittable
// pseudorandom number generators", 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// word returns the eight bytes at offset 8i, as a little-endian number.
func (f Film) word(i uint64) uint64 { return mix(f.Seed + (i+1)*golden) }

// ReadAt fills p with the content at off.
func (f Film) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("film: negative offset")
	}
	if off >= f.Size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.Size-off))
	q := p[:n]
	i := uint64(off) / 8
	var b [8]byte
	if skip := int(off % 8); skip > 0 {
		binary.LittleEndian.PutUint64(b[:], f.word(i))
		q = q[copy(q, b[skip:]):]
		i++
	}
	for z := f.Seed + (i+1)*golden; len(q) >= 8; z += golden {
		binary.LittleEndian.PutUint64(q, mix(z))
		q = q[8:]
		i++
	}
	if len(q) > 0 {
		binary.LittleEndian.PutUint64(b[:], f.word(i))
		copy(q, b[:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Verify returns an error that names the first byte of p that is not the
// film's at off. It makes the content again and keeps none of it.
func (f Film) Verify(p []byte, off int64) error {
	if off < 0 || int64(len(p)) > f.Size-off {
		return fmt.Errorf("film: %d bytes at offset %d, outside its %d", len(p), off, f.Size)
	}
	i, at := uint64(off)/8, 0 // at: how much of p is compared
	if skip := int(off % 8); skip > 0 {
		n := min(8-skip, len(p))
		if wrong := differ(p[:n], f.word(i)>>(8*skip)); wrong >= 0 {
			return f.wrong(off + int64(wrong))
		}
		i++
		at = n
	}
	z := f.Seed + (i+1)*golden
	for ; len(p)-at >= 8; at += 8 {
		if x := binary.LittleEndian.Uint64(p[at:]) ^ mix(z); x != 0 {
			return f.wrong(off + int64(at+bits.TrailingZeros64(x)/8))
		}
		z += golden
	}
	if wrong := differ(p[at:], mix(z)); wrong >= 0 {
		return f.wrong(off + int64(at+wrong))
	}
	return nil
}

// differ returns the index of the first byte of p, at most eight, that is not
// the word's, or -1.
func differ(p []byte, word uint64) int {
	for i, b := range p {
		if b != byte(word>>(8*i)) {
			return i
		}
	}
	return -1
}

func (f Film) wrong(off int64) error { return fmt.Errorf("film: wrong byte at offset %d", off) }
