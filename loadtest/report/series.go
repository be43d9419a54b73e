package report

import (
	"math"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// maxPoints bounds the points of a plot: more than two a millimetre on paper
// cannot be told apart, and a day of seconds would make a file of megabytes.
const maxPoints = 240

// bucket is the samples that one point of a plot stands for.
type bucket struct {
	at      float64 // seconds, the middle
	samples []result.Sample
}

// buckets cuts a run into at most maxPoints pieces of equal length.
func buckets(samples []result.Sample) []bucket {
	size := (len(samples) + maxPoints - 1) / maxPoints
	var all []bucket
	for len(samples) > 0 {
		n := min(size, len(samples))
		first, last := samples[0].At, samples[n-1].At
		all = append(all, bucket{at: ((first + last) / 2).Seconds(), samples: samples[:n]})
		samples = samples[n:]
	}
	return all
}

// series is one value over time.
type series struct {
	name   string
	class  string // of the style sheet
	values []float64
}

// average is the mean of each bucket.
func average(all []bucket, f func(result.Sample) float64) []float64 {
	return each(all, func(b bucket) float64 {
		var sum float64
		for _, s := range b.samples {
			sum += f(s)
		}
		return sum / float64(len(b.samples))
	})
}

// extreme is what keep (min or max) leaves of each bucket.
func extreme(all []bucket, keep func(a, b float64) float64, f func(result.Sample) float64) []float64 {
	return each(all, func(b bucket) float64 {
		v := f(b.samples[0])
		for _, s := range b.samples[1:] {
			v = keep(v, f(s))
		}
		return v
	})
}

// summary is the mean and the highest value of the samples themselves, which
// the means of buckets would hide.
func summary(all []bucket, f func(result.Sample) float64) (average, highest float64) {
	var sum, n float64
	for _, b := range all {
		for _, s := range b.samples {
			v := f(s)
			sum += v
			n++
			highest = max(highest, v)
		}
	}
	return sum / n, highest
}

func each(all []bucket, f func(bucket) float64) []float64 {
	values := make([]float64, len(all))
	for i, b := range all {
		if v := f(b); !math.IsNaN(v) && !math.IsInf(v, 0) {
			values[i] = v
		}
	}
	return values
}

func scaled(values []float64, factor float64) []float64 {
	all := make([]float64, len(values))
	for i, v := range values {
		all[i] = v * factor
	}
	return all
}

// ticks are round values from 0 to at least top, about n of them. A top that no
// measured value has gives the axis of nothing.
func ticks(top float64, n int) []float64 {
	if !(top > 1e-12 && top < 1e30) {
		return []float64{0, 1}
	}
	raw := top / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * power
	for _, round := range []float64{1, 2, 2.5, 5} {
		if round*power >= raw*0.999 {
			step = round * power
			break
		}
	}
	return until(top, step)
}

// timeTicks are round times from 0 to at most the end, and the unit in which
// they are written.
func timeTicks(end time.Duration) (at []time.Duration, unit time.Duration, name string) {
	unit, name = time.Second, "seconds"
	switch {
	case end > 3*time.Hour:
		unit, name = time.Hour, "hours"
	case end > 3*time.Minute:
		unit, name = time.Minute, "minutes"
	}
	const most = 7
	step := unit
	for _, n := range []time.Duration{1, 2, 5, 10, 15, 20, 30, 60} {
		if step = n * unit; end/step < most {
			break
		}
	}
	for end/step >= most {
		step *= 2
	}
	for i := range end/step + 1 {
		at = append(at, i*step)
	}
	return at, unit, name
}

func until(top, step float64) []float64 {
	all := []float64{0}
	for i := 1; all[len(all)-1] < top*0.999; i++ {
		all = append(all, float64(i)*step)
	}
	return all
}
