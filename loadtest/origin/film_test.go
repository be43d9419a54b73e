package origin

import (
	"bytes"
	"encoding/binary"
	"io"
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
	if _, err := (Film{Size: 10}).ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset can be read")
	}
}

// TestFilmIsSplitMix64 compares with the generator's published first outputs
// for the seed 1234567.
func TestFilmIsSplitMix64(t *testing.T) {
	p := make([]byte, 40)
	Film{Seed: 1234567, Size: 40}.ReadAt(p, 0)
	for i, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821} {
		if got := binary.LittleEndian.Uint64(p[8*i:]); got != want {
			t.Errorf("word %d is %d, want %d", i, got, want)
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

// TestVerify takes pieces at all alignments, flips each bit and moves them.
func TestVerify(t *testing.T) {
	f := Film{Seed: 7, Size: 2000}
	for off := int64(1000); off < 1009; off++ {
		for length := range 34 {
			p := make([]byte, length)
			f.ReadAt(p, off)
			if err := f.Verify(p, off); err != nil {
				t.Fatalf("%d bytes at %d: %v", length, off, err)
			}
			for i := range p {
				for bit := range 8 {
					p[i] ^= 1 << bit
					if f.Verify(p, off) == nil {
						t.Fatalf("bit %d of byte %d of %d at %d may be flipped", bit, i, length, off)
					}
					p[i] ^= 1 << bit
				}
			}
			for _, at := range []int64{off - 1, off + 1, off + 8, f.Size - 1, -1} {
				if length > 1 && f.Verify(p, at) == nil {
					t.Errorf("%d bytes of offset %d pass at %d", length, off, at)
				}
			}
		}
	}
	p := make([]byte, 40)
	f.ReadAt(p, 1003)
	for i := range p {
		p[i] ^= 0x80
		if err, want := f.Verify(p, 1003), f.wrong(1003+int64(i)); err == nil || err.Error() != want.Error() {
			t.Errorf("byte %d: %v, want %v", i, err, want)
		}
		p[i] ^= 0x80
	}
	if f.Verify(nil, f.Size) != nil || f.Verify(nil, f.Size+1) == nil || f.Verify(make([]byte, 1), f.Size) == nil {
		t.Error("the end is not where it should be")
	}
}

func TestFilmAllocatesNothing(t *testing.T) {
	f := Film{Seed: 7, Size: 1 << 40}
	p := make([]byte, 32<<10)
	if n := testing.AllocsPerRun(100, func() {
		f.ReadAt(p, 1003)
		if f.Verify(p, 1003) != nil {
			t.Fatal("wrong")
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkFilm(b *testing.B) {
	f := Film{Seed: 7, Size: 1 << 50}
	p := make([]byte, 32<<10)
	b.Run("make", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for off := int64(0); b.Loop(); off += int64(len(p)) {
			f.ReadAt(p, off)
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		f.ReadAt(p, 0)
		for b.Loop() {
			if err := f.Verify(p, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("both", func(b *testing.B) {
		b.SetBytes(int64(len(p)))
		for off := int64(0); b.Loop(); off += int64(len(p)) {
			f.ReadAt(p, off)
			if err := f.Verify(p, off); err != nil {
				b.Fatal(err)
			}
		}
	})
}
