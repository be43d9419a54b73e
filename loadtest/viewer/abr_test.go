package viewer

import (
	"fmt"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// rungs of the tests, in bit/s.
var rungs = []int64{200_000, 400_000, 800_000, 1_600_000}

// highest returns the highest rung up to a share of a rate.
func highest(rate, share float64) int64 {
	best := rungs[0]
	for _, r := range rungs {
		if float64(r) <= rate*share {
			best = r
		}
	}
	return best
}

// TestAdaptiveOnConstantLink: whatever the link, the viewer climbs from the
// lowest rung to the highest within 70% of it, takes few steps, then stays, and
// does not stall.
func TestAdaptiveOnConstantLink(t *testing.T) {
	for _, spread := range []float64{-1, 0.25} {
		for _, rate := range []float64{260_000, 500_000, 900_000, 1_300_000, 3_000_000} {
			for _, kind := range []Kind{VOD, Live} {
				t.Run(fmt.Sprintf("%s %g", kind, rate), func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						early, begin := int64(0), time.Now()
						w := view{viewer: Config{Kind: kind, Adaptive: true}, steps: []step{{0, rate / 8}}, during: 2 * time.Minute}
						w.origin.Bitrates, w.origin.Spread = rungs, spread
						w.each = func(v *Viewer) {
							if time.Since(begin) <= time.Minute {
								early = v.cfg.Recorder.Viewers().Switches
							}
						}
						late := w.run(t)
						if n := late.Viewers.Switches; n != early || n > int64(len(rungs)) || n < 1 && rate > 600_000 {
							t.Errorf("%d changes of bitrate in a minute, %d in two", early, n)
						}
						// BANDWIDTH is the peak, and the rule looks at the peak.
						want := highest(rate/(1+max(spread, 0)), climbShare)
						if n := late.Bitrates[fmt.Sprint(want)]; n < late.Hists[result.HistSegment].Count()*8/10 {
							t.Errorf("bitrates %v, want mostly %d", late.Bitrates, want)
						}
						if late.Viewers.Stalls != 0 && kind == VOD || late.Viewers.Corrupt != 0 || len(late.Errors) != 0 {
							t.Errorf("%+v, errors %v", late.Viewers, late.Errors)
						}
					})
				})
			}
		}
	}
}

// TestAdaptiveFollows: a link that falls makes the viewer fall without a
// stall, and one that rises lets it climb.
func TestAdaptiveFollows(t *testing.T) {
	for _, test := range []struct {
		name         string
		first, later float64
		before       int64
		after        int64
		switches     int64
	}{
		{"falls", 3_000_000, 500_000, 1_600_000, 400_000, 4},
		{"rises", 500_000, 3_000_000, 200_000, 1_600_000, 3},
	} {
		bubble(t, func(t *testing.T) {
			var last [2]map[string]int64
			w := view{viewer: Config{Kind: VOD, Adaptive: true}, during: time.Minute}
			w.origin.Bitrates, w.origin.Spread = rungs, -1
			for i, during := range []time.Duration{time.Minute, 4 * time.Minute} {
				w.during = during
				w.steps = []step{{0, test.first / 8}, {61 * second, test.later / 8}}
				r := w.run(t)
				last[i] = r.Bitrates
				if r.Viewers.Stalls != 0 || r.Viewers.Switches > test.switches || i == 1 && r.Viewers.Switches < 2 {
					t.Errorf("%s: %+v", test.name, r.Viewers)
				}
			}
			later := func(rate int64) int64 { return last[1][fmt.Sprint(rate)] - last[0][fmt.Sprint(rate)] }
			if last[0][fmt.Sprint(test.before)] < 10 || later(test.after) < 20 {
				t.Errorf("%s: %v in the first minute, %v in four", test.name, last[0], last[1])
			}
		})
	}
}

// TestAdaptiveAfterJump: with an empty buffer the viewer takes a rung of half
// the throughput, to have a picture soon.
func TestAdaptiveAfterJump(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := view{viewer: Config{Kind: Seek, Adaptive: true}, steps: []step{{0, 1_300_000 / 8}}, during: 5 * time.Minute}
		w.origin.Bitrates, w.origin.Spread = rungs, -1
		r := w.run(t)
		jumps := r.Hists[result.HistStart].Count() - 1
		if n := r.Bitrates["400000"]; jumps < 20 || n < jumps/2 || r.Bitrates["800000"] < jumps/2 {
			t.Errorf("%d jumps, bitrates %v", jumps, r.Bitrates)
		}
	})
}

func TestFixedRung(t *testing.T) {
	variants := []variant{{bandwidth: 250, average: 200}, {bandwidth: 500, average: 400}, {bandwidth: 1000, average: 800}}
	for bitrate, want := range map[int64]int{0: 2, 100: 0, 200: 0, 399: 0, 400: 1, 799: 1, 800: 2, 9000: 2} {
		if got := fixed(variants, bitrate); got != want {
			t.Errorf("with %d rung %d, want %d", bitrate, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	variants := []variant{{bandwidth: 200_000}, {bandwidth: 400_000}, {bandwidth: 800_000}}
	for _, test := range []struct {
		has  float64 // bit/s
		now  int
		low  bool
		want int
	}{
		{0, 0, false, 0}, // before the first segment: 500 kbit/s
		{900_000, 0, false, 1},
		{900_000, 2, false, 2}, // kept
		{900_000, 2, true, 1},  // but not with an empty buffer
		{800_000, 2, false, 1},
		{1_143_000, 1, false, 2},
		{10_000, 2, false, 0},
	} {
		p := newThroughput()
		if test.has > 0 {
			p.add(int64(test.has/8), time.Second)
		}
		if got := p.choose(variants, test.now, test.low); got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
	p := newThroughput()
	p.add(1_000_000, 20*time.Second)
	p.add(1000, time.Second)
	if e := p.estimate(); e != p.fast.mean() || e >= p.slow.mean() {
		t.Errorf("after a fall the estimate is %g, of %g and %g", e, p.fast.mean(), p.slow.mean())
	}
	p.add(1_000_000, time.Second)
	if e := p.estimate(); e != p.slow.mean() || e >= p.fast.mean() {
		t.Errorf("after a rise the estimate is %g, of %g and %g", e, p.fast.mean(), p.slow.mean())
	}
	p = newThroughput()
	p.add(1000, time.Hour)
	p.add(100_000, time.Hour)
	p.add(0, 0)
	if e := p.estimate(); e > 100_000*8/3600.0+1 {
		t.Errorf("estimate %g", e)
	}
}
