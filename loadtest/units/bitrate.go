package units

import (
	"fmt"
	"strconv"
	"strings"
)

// Bitrate is a rate in bit/s that flags and files write like 8M.
type Bitrate int64

// Bounds of a Bitrate, in bit/s.
const (
	minBitrate = 8_000
	maxBitrate = 100_000_000_000
)

// UnmarshalText reads a number with an optional k, M or G behind it.
func (b *Bitrate) UnmarshalText(text []byte) error {
	s, unit := string(text), 1.0
	if n := len(s) - 1; n > 0 {
		if factor := map[byte]float64{'k': 1e3, 'M': 1e6, 'G': 1e9}[s[n]]; factor > 0 {
			s, unit = s[:n], factor
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.ContainsAny(s, "xXpP_") || !(v*unit >= minBitrate && v*unit <= maxBitrate) {
		return fmt.Errorf("%q is not a bitrate from 8k to 100G, like 8M", text)
	}
	*b = Bitrate(v * unit)
	return nil
}

// MarshalText writes the bitrate so that UnmarshalText reads the same.
func (b Bitrate) MarshalText() ([]byte, error) {
	for _, u := range []struct {
		name   string
		factor Bitrate
	}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}} {
		if b != 0 && b%u.factor == 0 {
			return fmt.Appendf(nil, "%d%s", b/u.factor, u.name), nil
		}
	}
	return strconv.AppendInt(nil, int64(b), 10), nil
}
