package report

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

func TestRatioIntervalOfKnownCases(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		a, b      []float64
		low, high float64
	}{
		{[]float64{2, 2}, []float64{3, 3, 3}, 1.5, 1.5},
		{[]float64{1, 1}, []float64{1, 3}, 1, 3}, // means 1, 2, 3 with 1/4, 1/2, 1/4
		{[]float64{1, 3}, []float64{1, 1}, 1.0 / 3, 1},
		{[]float64{0, 0}, []float64{0, 0}, 1, 1},     // nothing on both sides
		{[]float64{0, 0}, []float64{1, 1}, inf, inf}, // something from nothing
		{[]float64{1, 1}, []float64{0, 0}, 0, 0},
		{[]float64{0, 1}, []float64{1, 1}, 1, inf}, // the mean of a may be zero
	} {
		low, high := ratioInterval(c.a, c.b)
		if low != c.low || high != c.high {
			t.Errorf("%v to %v: from %v to %v, want %v to %v", c.a, c.b, low, high, c.low, c.high)
		}
	}
}

func TestRatioIntervalRepeats(t *testing.T) {
	a, b := []float64{1, 2, 3, 4, 5}, []float64{2, 3, 4, 5, 6}
	low, high := ratioInterval(a, b)
	for range 3 {
		if l, h := ratioInterval(a, b); l != low || h != high {
			t.Fatalf("from %v to %v, then from %v to %v", low, high, l, h)
		}
	}
}

// TestRatioIntervalCovers draws runs of which the true ratio is known. An
// interval of 95% from ten runs a side is known to hold a little less.
func TestRatioIntervalCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	const trials, truth = 80, 1.3
	held := 0
	for range trials {
		var a, b []float64
		for range 10 {
			a = append(a, 100*(1+0.1*random.NormFloat64()))
			b = append(b, truth*100*(1+0.1*random.NormFloat64()))
		}
		low, high := ratioInterval(a, b)
		if low <= truth && truth <= high {
			held++
		}
		if low <= 1 {
			t.Errorf("a change by 30%% in noise of 10%% was not found: %v to %v", low, high)
		}
	}
	if share := float64(held) / trials; share < 0.86 || share > 0.99 {
		t.Errorf("%d of %d intervals hold the truth", held, trials)
	}
}

func repeated(t *testing.T, from uint64, n int) []*result.Result {
	t.Helper()
	var all []*result.Result
	for i := range uint64(n) {
		all = append(all, made(t, from+i, time.Minute))
	}
	return all
}

// said returns what a comparison says of a figure.
func said(t *testing.T, c Comparison, column string) change {
	t.Helper()
	for _, r := range c.rows {
		if r.figure.column == column {
			return r.change
		}
	}
	t.Fatalf("%s is not compared", column)
	return ""
}

func TestCompare(t *testing.T) {
	a, b := repeated(t, 1, 6), repeated(t, 101, 6)
	for i, r := range b {
		r.Relay.CPU *= 2
		r.Load.CPU *= 3
		r.Viewers.Watched = time.Duration(1000+i) * time.Hour // the stall ratio falls
		r.Viewers.Requests *= 2
	}
	c := Compare(a, b)
	for column, want := range map[string]change{
		"relay_cpu_s_per_gib": worse, "stall_ratio": better, "viewers": same, "ttfb_p50_s": noise, "requests": differs, "goodput_bps": noise,
	} {
		if got := said(t, c, column); got != want {
			t.Errorf("%s: %s, want %s", column, got, want)
		}
	}
	got := c.String()
	for _, want := range []string{"(6 runs)", "relay", "WORSE\n", "one in twenty"} {
		if !strings.Contains(strings.ToUpper(got), strings.ToUpper(want)) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "WORSE?") {
		t.Errorf("six runs are called too few:\n%s", got)
	}
}

func TestCompareOfSingleRunsCannotTellNoise(t *testing.T) {
	c := Compare(repeated(t, 1, 1), repeated(t, 50, 4))
	if got := said(t, c, "ttfb_p50_s"); got != unknown {
		t.Errorf("a single run says %q", got)
	}
	if got := said(t, c, "viewers"); got != same {
		t.Errorf("equal values are %q", got)
	}
	if got := c.String(); !strings.Contains(got, "(1 run)") || !strings.Contains(got, "whether a difference is noise cannot be told") || strings.Contains(got, "WORSE") || strings.Contains(got, "better") {
		t.Errorf("got\n%s", got)
	}
}

func TestCompareOfFewRunsHints(t *testing.T) {
	a, b := repeated(t, 1, 3), repeated(t, 50, 3)
	for _, r := range b {
		r.Relay.CPU *= 2
	}
	got := Compare(a, b).String()
	if !strings.Contains(got, "WORSE?") || !strings.Contains(got, "Fewer than 5 runs") {
		t.Errorf("got\n%s", got)
	}
}

func TestCompareLeavesOutWhatARunDoesNotHave(t *testing.T) {
	a, b := repeated(t, 1, 2), repeated(t, 5, 2)
	b[1].Relay = nil
	for _, r := range Compare(a, b).rows {
		if strings.HasPrefix(r.figure.column, "relay") {
			t.Errorf("%s is compared", r.figure.column)
		}
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		d         direction
		low, high float64
		want      change
	}{
		{lower, 0.9, 1.1, noise}, {higher, 1, 1.1, noise}, {neither, 0.5, 1, noise},
		{lower, 0.5, 0.9, better}, {lower, 1.1, 2, worse}, {lower, 2, math.Inf(1), worse},
		{higher, 0.5, 0.9, worse}, {higher, 1.1, 2, better},
		{neither, 0.5, 0.9, differs}, {neither, 1.1, 2, differs},
	} {
		if got := judge(c.d, c.low, c.high); got != c.want {
			t.Errorf("direction %d from %v to %v: %s, want %s", c.d, c.low, c.high, got, c.want)
		}
	}
}
