package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// part is one of several counts that make up a whole.
type part struct {
	Name  string
	Count int64
	Share float64 // of the whole; 1 is all
}

// bitrateParts are the bitrates chosen, the lowest first.
func bitrateParts(r *result.Result) []part {
	number := func(text string) float64 {
		bits, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return -1 // "other" comes first
		}
		return bits
	}
	keys := slices.SortedFunc(maps.Keys(r.Bitrates), func(a, b string) int {
		return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a, b))
	})
	return parts(r.Bitrates, keys, func(key string) string {
		if bits := number(key); bits >= 0 {
			return units.Rate(bits)
		}
		return key
	})
}

// errorParts are the errors by code, the most frequent first.
func errorParts(r *result.Result) []part {
	keys := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.Errors[b], r.Errors[a]), cmp.Compare(a, b))
	})
	return parts(r.Errors, keys, func(key string) string { return key })
}

func parts(counts map[string]int64, keys []string, name func(string) string) []part {
	var whole int64
	for _, n := range counts {
		whole += n
	}
	var all []part
	for _, key := range keys {
		if n := counts[key]; n > 0 {
			all = append(all, part{name(key), n, float64(n) / float64(whole)})
		}
	}
	return all
}
