package report

import (
	"math"
	"math/rand/v2"
	"slices"
)

// How the interval of a ratio is found.
const (
	resamples  = 10_000
	confidence = 0.95
	seed       = 0x626c696e646c6f61 // fixed, so that a comparison repeats exactly
)

// ratioInterval estimates between which bounds the ratio of the means of b and
// a lies, by the percentile bootstrap (Efron and Tibshirani, An Introduction to
// the Bootstrap, 1993, chapter 13). Neither side may be empty, nor hold negative
// values. A bound is +Inf where a resample of a has the mean zero.
func ratioInterval(a, b []float64) (low, high float64) {
	random := rand.New(rand.NewPCG(seed, seed))
	ratios := make([]float64, resamples)
	for i := range ratios {
		ratios[i] = ratio(resampledMean(random, a), resampledMean(random, b))
	}
	slices.Sort(ratios)
	tail := (1 - confidence) / 2
	at := func(q float64) float64 { return ratios[int(math.Round(q*float64(len(ratios)-1)))] }
	return at(tail), at(1 - tail)
}

func resampledMean(random *rand.Rand, values []float64) float64 {
	var sum float64
	for range values {
		sum += values[random.IntN(len(values))]
	}
	return sum / float64(len(values))
}

func mean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// ratio is b to a. Two zeros are equal.
func ratio(a, b float64) float64 {
	if a == b {
		return 1
	}
	return b / a
}
