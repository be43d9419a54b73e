package canary

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// spelling is a way to write bytes down.
type spelling struct {
	name  string
	spell func(b []byte) [][]byte
}

// spellings returns all that a Scanner knows. The first one is the bytes as they
// are.
func spellings() []spelling {
	return []spelling{
		{"raw", func(b []byte) [][]byte { return [][]byte{b} }},
		{"hex", func(b []byte) [][]byte { return [][]byte{[]byte(hex.EncodeToString(b))} }},
		{"HEX", func(b []byte) [][]byte { return [][]byte{[]byte(strings.ToUpper(hex.EncodeToString(b)))} }},
		{"base64", func(b []byte) [][]byte { return inBase64(base64.RawStdEncoding, b) }},
		{"base64url", func(b []byte) [][]byte { return inBase64(base64.RawURLEncoding, b) }},
		{"UTF-16LE", func(b []byte) [][]byte { return [][]byte{wide(b, 0)} }},
		{"UTF-16BE", func(b []byte) [][]byte { return [][]byte{wide(b, 1)} }},
	}
}

// inBase64 returns what b becomes inside a longer text, at each of the three
// places where a byte can stand in a group: the characters that b alone decides.
func inBase64(e *base64.Encoding, b []byte) [][]byte {
	var all [][]byte
	for before := range 3 {
		text := e.EncodeToString(append(make([]byte, before), b...))
		from := (8*before + 5) / 6
		to := 8 * (before + len(b)) / 6
		all = append(all, []byte(text[from:to]))
	}
	return all
}

// wide writes each byte as a character of 16 bits; at is its place in them.
func wide(b []byte, at int) []byte {
	w := make([]byte, 2*len(b))
	for i, x := range b {
		w[2*i+at] = x
	}
	return w
}
