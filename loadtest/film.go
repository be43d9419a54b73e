package loadtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Film is content that anybody who knows its seed can verify: the eight bytes
// at offset 8i are a hash of the seed and i. It implements io.ReaderAt.
type Film struct {
	Seed uint64
	Size int64 // bytes
}

// word returns the eight bytes at offset 8i (SplitMix64: Steele, Lea, Flood,
// "Fast splittable pseudorandom number generators", 2014).
func (f Film) word(i uint64) uint64 {
	z := f.Seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

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
	for ; len(q) >= 8; i++ {
		binary.LittleEndian.PutUint64(q, f.word(i))
		q = q[8:]
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
// film's at off. Scratch is at least as long as p.
func (f Film) Verify(p []byte, off int64, scratch []byte) error {
	want := scratch[:len(p)]
	if n, _ := f.ReadAt(want, off); n < len(p) {
		return fmt.Errorf("film: %d bytes at offset %d, which is beyond its end %d", len(p), off, f.Size)
	}
	for i := range p {
		if p[i] != want[i] {
			return fmt.Errorf("film: wrong byte at offset %d", off+int64(i))
		}
	}
	return nil
}
