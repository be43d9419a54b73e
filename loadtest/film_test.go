package loadtest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestFilmIsAFile(t *testing.T) {
	for _, size := range []int64{0, 1, 7, 8, 9, 1000} {
		f := Film{Seed: 42, Size: size}
		whole := make([]byte, size)
		if n, err := f.ReadAt(whole, 0); n != int(size) || (size > 0 && err != nil) {
			t.Fatalf("size %d: ReadAt gave %d bytes, %v", size, n, err)
		}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, size), whole); err != nil {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestFilmsDiffer(t *testing.T) {
	a, b := make([]byte, 4096), make([]byte, 4096)
	Film{Seed: 1, Size: 4096}.ReadAt(a, 0)
	Film{Seed: 2, Size: 4096}.ReadAt(b, 0)
	if bytes.Equal(a, b) {
		t.Error("films of two seeds are equal")
	}
	if bytes.Equal(a[:2048], a[2048:]) {
		t.Error("a film repeats itself")
	}
}

// TestVerifyFindsEveryFlip flips each bit of a piece of film, and moves it.
func TestVerifyFindsEveryFlip(t *testing.T) {
	f := Film{Seed: 7, Size: 1 << 20}
	const off = 1003
	p, scratch := make([]byte, 100), make([]byte, 100)
	f.ReadAt(p, off)
	if err := f.Verify(p, off, scratch); err != nil {
		t.Fatal(err)
	}
	for i := range p {
		for bit := range 8 {
			p[i] ^= 1 << bit
			if f.Verify(p, off, scratch) == nil {
				t.Fatalf("bit %d of byte %d may be flipped", bit, i)
			}
			p[i] ^= 1 << bit
		}
	}
	for _, at := range []int64{off - 1, off + 1, off + 8, f.Size - 1} {
		if f.Verify(p, at, scratch) == nil {
			t.Errorf("the bytes of offset %d pass at %d", off, at)
		}
	}
}

func BenchmarkFilm(b *testing.B) {
	f := Film{Seed: rand.Uint64(), Size: 1 << 40}
	p, scratch := make([]byte, chunk), make([]byte, chunk)
	b.SetBytes(chunk)
	off := int64(0)
	for b.Loop() {
		f.ReadAt(p, off)
		if err := f.Verify(p, off, scratch); err != nil {
			b.Fatal(err)
		}
		off += chunk
	}
}
