package viewer

import (
	"math"
	"time"
)

// The choice of bitrate is that of hls.js in its simple part, with its default
// figures: the throughput is the lower of two moving averages (half-lives 3 s
// and 9 s of transfer time, abrEwmaFastVoD and abrEwmaSlowVoD); a rung is kept
// or left for a lower one at 95% of it (abrBandWidthFactor), and a higher one is
// taken at 70% (abrBandWidthUpFactor). The gap between the two keeps a viewer
// on a constant link from going back and forth. Of the buffer, it has the
// reservoir of BBA-0 (Huang et al., "A Buffer-Based Approach to Rate
// Adaptation", SIGCOMM 2014): with less than one segment ahead, only rungs up
// to half of the throughput count, so that the buffer fills twice as fast as
// it plays. A request that has begun is not given up for a lower rung.
const (
	ewmaFast    = 3.0     // seconds
	ewmaSlow    = 9.0     // seconds
	ewmaDefault = 500_000 // bit/s, before the first segment (abrEwmaDefaultEstimate)
	keepShare   = 0.95
	climbShare  = 0.7
	emptyShare  = 0.5
	leastSample = 0.05 // seconds; shorter transfers count as this long, as in hls.js
)

// ewma is a moving average over transfer time.
type ewma struct {
	halfLife float64 // seconds
	value    float64
	weight   float64 // seconds in all
}

func (e *ewma) add(seconds, value float64) {
	keep := math.Pow(0.5, seconds/e.halfLife)
	e.value = value*(1-keep) + e.value*keep
	e.weight += seconds
}

// mean corrects for the zero that the average began with.
func (e *ewma) mean() float64 { return e.value / (1 - math.Pow(0.5, e.weight/e.halfLife)) }

// throughput estimates what the path carries.
type throughput struct{ fast, slow ewma }

func newThroughput() throughput {
	return throughput{fast: ewma{halfLife: ewmaFast}, slow: ewma{halfLife: ewmaSlow}}
}

// add counts a segment that took a time from its request to its last byte.
func (t *throughput) add(bytes int64, took time.Duration) {
	if bytes == 0 {
		return
	}
	s := max(took.Seconds(), leastSample)
	t.fast.add(s, float64(bytes)*8/s)
	t.slow.add(s, float64(bytes)*8/s)
}

// estimate is in bit/s.
func (t *throughput) estimate() float64 {
	if t.fast.weight == 0 {
		return ewmaDefault
	}
	return min(t.fast.mean(), t.slow.mean())
}

// choose returns the index of the variant to take next, of variants that
// ascend. Low says that less than one segment is ahead.
func (t *throughput) choose(variants []variant, now int, low bool) int {
	best, has := 0, t.estimate()
	for i, v := range variants {
		share := climbShare
		if i <= now {
			share = keepShare
		}
		if low {
			share = min(share, emptyShare)
		}
		if float64(v.bandwidth) <= has*share {
			best = i
		}
	}
	return best
}
