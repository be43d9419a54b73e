// Package units writes figures as people read them: three digits and a unit.
//
//	units.Rate(8_123_456)              // 8.12 Mbit/s
//	units.Bytes(1_288_490_189)         // 1.20 GiB
//	units.Duration(1234 * time.Second) // 1,234 s
//	units.Percent(0.00021)             // 0.021%
package units

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Rate writes bit/s with a decimal prefix.
func Rate(bits float64) string {
	v, prefix := scale(bits, 1000, []string{"", "k", "M", "G", "T"})
	return Number(v) + " " + prefix + "bit/s"
}

// Bytes writes a size with a binary prefix.
func Bytes(n float64) string {
	v, unit := scale(n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
	return Number(v) + " " + unit
}

// Duration writes d in µs, ms or seconds.
func Duration(d time.Duration) string {
	switch abs := d.Abs(); {
	case d == 0:
		return "0 s"
	case abs < time.Millisecond:
		return Number(float64(d)/float64(time.Microsecond)) + " µs"
	case abs < time.Second:
		return Number(float64(d)/float64(time.Millisecond)) + " ms"
	default:
		return Number(d.Seconds()) + " s"
	}
}

// Percent writes a ratio: 0.5 is 50%.
func Percent(ratio float64) string { return Number(100*ratio) + "%" }

// Number writes v with three significant digits, or all digits before the
// point with commas between thousands. Zeros at the end are kept, so that columns are of one precision.
func Number(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	digits := 0
	if v != math.Trunc(v) {
		digits = 2 - int(math.Floor(math.Log10(math.Abs(v))))
	}
	return grouped(strconv.FormatFloat(v, 'f', min(max(digits, 0), 6), 64))
}

// grouped sets commas between thousands.
func grouped(text string) string {
	whole, fraction, _ := strings.Cut(text, ".")
	if fraction != "" {
		return text // with digits after the point there are at most three before it
	}
	first := len(whole) % 3
	if strings.HasPrefix(whole, "-") {
		first = 1 + (len(whole)-1)%3
	}
	var b strings.Builder
	b.WriteString(whole[:first])
	for i := first; i < len(whole); i += 3 {
		if i > 0 && whole[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteString(whole[i : i+3])
	}
	return b.String()
}

func scale(v, step float64, names []string) (float64, string) {
	i := 0
	for math.Abs(v) >= step && i < len(names)-1 {
		v /= step
		i++
	}
	return v, names[i]
}
