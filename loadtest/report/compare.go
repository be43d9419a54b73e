package report

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// enoughRuns is how many runs a side needs before an interval is believed. The
// percentile bootstrap is too narrow with fewer.
const enoughRuns = 5

// Comparison is two sets of runs side by side.
type Comparison struct {
	titleA, titleB string
	runsA, runsB   int
	rows           []row
}

// row is one figure on both sides.
type row struct {
	section   string
	figure    figure
	a, b      float64 // means
	ratio     float64 // b to a
	low, high float64 // interval of ratio; unless change is same or unknown
	change    change
}

// change is what can be said of a difference.
type change string

const (
	same    change = "same"  // every run has the same value
	noise   change = "noise" // the interval includes 1
	better  change = "better"
	worse   change = "WORSE"
	differs change = "differs"  // and neither direction is the better one
	unknown change = "one run?" // a side has one run, so noise cannot be told
)

// Compare puts runs before (a) and after (b) side by side, neither of them
// empty. A figure is compared if every run has data for it.
func Compare(a, b []*result.Result) Comparison {
	c := Comparison{titleA: titles(a), titleB: titles(b), runsA: len(a), runsB: len(b)}
	for _, s := range sections() {
		for _, f := range s.figures {
			before, okA := values(f, a)
			after, okB := values(f, b)
			if okA && okB {
				c.rows = append(c.rows, compare(s.title, f, before, after))
			}
		}
	}
	return c
}

func compare(section string, f figure, a, b []float64) row {
	r := row{section: section, figure: f, a: mean(a), b: mean(b)}
	r.ratio = ratio(r.a, r.b)
	if constant(slices.Concat(a, b)) {
		r.change = same
		return r
	}
	if len(a) < 2 || len(b) < 2 {
		r.change = unknown
		return r
	}
	r.low, r.high = ratioInterval(a, b)
	r.change = judge(f.better, r.low, r.high)
	return r
}

func judge(d direction, low, high float64) change {
	switch {
	case low <= 1 && high >= 1:
		return noise
	case d == neither:
		return differs
	case (d == lower) == (high < 1):
		return better
	default:
		return worse
	}
}

func constant(values []float64) bool {
	for _, v := range values {
		if v != values[0] {
			return false
		}
	}
	return true
}

func values(f figure, runs []*result.Result) ([]float64, bool) {
	var all []float64
	for _, r := range runs {
		v, ok := f.measure(r)
		if !ok {
			return nil, false
		}
		all = append(all, v)
	}
	return all, len(all) > 0
}

func titles(runs []*result.Result) string {
	var all []string
	seen := make(map[string]bool)
	for _, r := range runs {
		if !seen[r.Title] {
			seen[r.Title] = true
			all = append(all, r.Title)
		}
	}
	return strings.Join(all, " | ")
}

// String writes the comparison as a table for people. Figures that are 0 on
// both sides are left out.
func (c Comparison) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "a: %s (%s)\nb: %s (%s)\n", c.titleA, runs(c.runsA), c.titleB, runs(c.runsB))
	var g grid
	g.add("", "a", "b", "b/a", "95% interval", "")
	section := ""
	for _, r := range c.rows {
		if r.a == 0 && r.b == 0 {
			continue
		}
		if r.section != section {
			section = r.section
			g.add(section)
		}
		interval := ""
		if r.change != unknown && r.change != same {
			interval = ratioText(r.low) + " to " + ratioText(r.high)
		}
		g.add(r.figure.label, r.figure.write(r.a), r.figure.write(r.b), ratioText(r.ratio), interval, c.say(r.change))
	}
	g.write(&b, "Means of the runs")
	fmt.Fprintf(&b, "\n%s\n", c.advice())
	return string(printable(b.Bytes()))
}

// say puts a question mark behind what too few runs say.
func (c Comparison) say(said change) string {
	if said != unknown && said != same && said != noise && min(c.runsA, c.runsB) < enoughRuns {
		return string(said) + "?"
	}
	return string(said)
}

func (c Comparison) advice() string {
	switch fewest := min(c.runsA, c.runsB); {
	case fewest < 2:
		return "A single run on a side: whether a difference is noise cannot be told. Repeat the runs and give all files of each side."
	case fewest < enoughRuns:
		return fmt.Sprintf("Fewer than %d runs on a side make the intervals too narrow: what has a question mark is a hint.", enoughRuns)
	default:
		return "A difference whose interval includes 1.00 is noise. Of many figures, one in twenty differs by chance."
	}
}

func runs(n int) string {
	if n == 1 {
		return "1 run"
	}
	return fmt.Sprintf("%d runs", n)
}

func ratioText(v float64) string {
	switch {
	case math.IsInf(v, 0):
		return "from 0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
