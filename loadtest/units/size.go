package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that flags write like 64K, 256M or 2G.
type Size int64

// UnmarshalText reads a number with an optional K, M or G (powers of 1024)
// behind it.
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMG")
	shift, ok := map[string]int{"": 0, "K": 10, "M": 20, "G": 30}[string(text)[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size: write a number of bytes, or 64K, 256M, 2G", text)
	}
	*s = Size(n << shift)
	return nil
}
