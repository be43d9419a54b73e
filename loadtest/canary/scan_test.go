package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"
)

// spelled writes b down in every way, by programs other than the scanner's own
// spellings.
var spelled = map[string]func(b []byte) []byte{
	"raw": func(b []byte) []byte { return b },
	"hex": func(b []byte) []byte { return fmt.Appendf(nil, "%x", b) },
	"HEX": func(b []byte) []byte { return fmt.Appendf(nil, "%X", b) },
	"base64": func(b []byte) []byte {
		return []byte(base64.StdEncoding.EncodeToString(b))
	},
	"base64url": func(b []byte) []byte {
		return []byte(base64.URLEncoding.EncodeToString(b))
	},
	"UTF-16LE": func(b []byte) []byte { return inUTF16(b, false) },
	"UTF-16BE": func(b []byte) []byte { return inUTF16(b, true) },
}

func inUTF16(b []byte, big bool) []byte {
	var text []rune
	for _, x := range b {
		text = append(text, rune(x))
	}
	var out []byte
	for _, u := range utf16.Encode(text) {
		if big {
			out = append(out, byte(u>>8), byte(u))
		} else {
			out = append(out, byte(u), byte(u>>8))
		}
	}
	return out
}

// noise makes reproducible bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7}).Read(b)
	return b
}

// TestSpellings hides a secret at every place in other bytes, spells all of
// that in every way, and finds it. The same bytes without it hold nothing.
func TestSpellings(t *testing.T) {
	for size := MinLen; size <= 50; size++ {
		secret := noise(uint64(size), size)
		var s Scanner
		if err := s.Add("secret", secret); err != nil {
			t.Fatal(err)
		}
		for name, spell := range spelled {
			for before := range 7 {
				for after := range 4 {
					with := append(append(noise(100, before), secret...), noise(101, after)...)
					sweep := s.Sweep()
					sweep.Write(spell(with))
					if n := sweep.Found().Secrets()["secret"]; n < int64(len(pieces(secret))) {
						t.Fatalf("%d bytes in %s between %d and %d others: %d of %d pieces found", size, name, before, after, n, len(pieces(secret)))
					}
				}
			}
			sweep := s.Sweep()
			sweep.Write(spell(noise(102, 4096)))
			if len(sweep.Found()) != 0 {
				t.Errorf("found %v in noise", sweep.Found())
			}
		}
	}
}

// TestPieces finds half of a key, wherever the half was cut.
func TestPieces(t *testing.T) {
	secret := noise(1, 48)
	for _, r := range [][2]int{{0, 16}, {16, 32}, {32, 48}, {0, 24}, {24, 48}, {10, 40}} {
		var s Scanner
		if err := s.Add("secret", secret); err != nil {
			t.Fatal(err)
		}
		sweep := s.Sweep()
		sweep.Write(secret[r[0]:r[1]])
		if len(sweep.Found()) != 1 {
			t.Errorf("bytes %d to %d of the secret: found %v", r[0], r[1], sweep.Found())
		}
	}
}

// TestParts writes the same bytes in two parts, cut at every place, and finds
// the same as a search that compares at every place. A gap hides what it cuts.
func TestParts(t *testing.T) {
	var s Scanner
	if n := s.Patterns(); n != 0 {
		t.Errorf("nothing was added and %d patterns are searched for", n)
	}
	a, b := noise(2, 20), []byte("a-title-of-a-film")
	for name, v := range map[string][]byte{"a": a, "b": b} {
		if err := s.Add(name, v); err != nil {
			t.Fatal(err)
		}
	}
	all := bytes.Join([][]byte{a, b, []byte(hex.EncodeToString(a)), inUTF16(b, true), noise(3, 20), b, b}, nil)
	want := Found{}
	for _, same := range s.patterns {
		for _, p := range same {
			for i := range all {
				if bytes.HasPrefix(all[i:], p.text) {
					want[p.mark]++
				}
			}
		}
	}
	if len(want) < 4 {
		t.Fatalf("the bytes hold only %v", want)
	}
	for cut := range len(all) {
		sweep := s.Sweep()
		sweep.Write(all[:cut])
		sweep.Write(all[cut:])
		if got := sweep.Found(); !maps.Equal(got, want) {
			t.Fatalf("cut at %d: found %v, want %v", cut, got, want)
		}
		if sweep.Bytes() != int64(len(all)) {
			t.Fatalf("%d bytes scanned of %d", sweep.Bytes(), len(all))
		}
	}
	single := s.Sweep()
	for _, x := range all {
		single.Write([]byte{x})
	}
	if got := single.Found(); !maps.Equal(got, want) {
		t.Errorf("byte by byte: found %v, want %v", got, want)
	}
	gap := s.Sweep()
	gap.Write(b[:5])
	gap.Gap()
	gap.Write(b[5:])
	if len(gap.Found()) != 0 {
		t.Errorf("found %v across a gap", gap.Found())
	}
}

// TestRaw adds a value that is searched for as it is.
func TestRaw(t *testing.T) {
	var s Scanner
	v := noise(4, 16)
	if err := s.AddRaw("sample", v); err != nil {
		t.Fatal(err)
	}
	sweep := s.Sweep()
	sweep.Write([]byte(hex.EncodeToString(v)))
	if len(sweep.Found()) != 0 {
		t.Errorf("found %v in hex", sweep.Found())
	}
	sweep.Write(v)
	if n := sweep.Found()[Mark{"sample", "raw"}]; n != 1 {
		t.Errorf("found %d times", n)
	}
}

// TestTooShort refuses a secret that occurs by chance.
func TestTooShort(t *testing.T) {
	var s Scanner
	if err := s.Add("four digits", []byte("1234")); err == nil || !strings.Contains(err.Error(), "four digits") {
		t.Errorf("added: %v", err)
	}
}

func BenchmarkSweep(b *testing.B) {
	var s Scanner
	for i := range 1000 {
		if err := s.Add(fmt.Sprint(i), noise(uint64(i), 32)); err != nil {
			b.Fatal(err)
		}
	}
	text := noise(9999, 1<<20)
	sweep := s.Sweep()
	b.SetBytes(int64(len(text)))
	b.ReportMetric(float64(s.Patterns()), "patterns")
	for b.Loop() {
		sweep.Write(text)
	}
}
