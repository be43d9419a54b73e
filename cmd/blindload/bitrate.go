package main

import (
	"fmt"
	"strconv"
	"strings"
)

// bitrate is a number of bits per second on the command line, like 8M.
type bitrate int64

// UnmarshalText parses a number with an optional k, M or G behind it.
func (b *bitrate) UnmarshalText(text []byte) error {
	s := string(text)
	unit := 1.0
	for suffix, factor := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = n, factor
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v*unit < 8_000 || v*unit > 100e9 {
		return fmt.Errorf("%q is not a bitrate from 8k to 100G, like 8M", text)
	}
	*b = bitrate(v * unit)
	return nil
}
