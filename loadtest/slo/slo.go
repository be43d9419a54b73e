// Package slo reads objectives for a load test and says whether a run met
// them.
//
//	objectives, err := slo.Parse("stall_ratio<0.1%,start_p95<2s")
//	res.SLO = objectives.Evaluate(res)
//
// An objective is a metric, one of < <= > >=, and a limit with its unit:
//
//	stall_ratio          share of the watching time spent in stalls, in % or plain
//	stalls               their number
//	longest_stall        ms or s
//	start_p95            start-up time at a percentile (p50, p99, p99.9 ...), ms or s
//	ttfb_p95             time to the first byte, likewise
//	segment_p95          time of a whole segment, likewise
//	goodput              bit/s of all viewers together, with k, M or G
//	errors               their number
//	never_started        viewers who saw no picture
//
// A run that has no data for an objective does not hold it.
package slo

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// Bounds of one text of objectives.
const (
	maxText       = 1 << 10 // bytes
	maxObjectives = 32
)

// Objectives is what a run is held to.
type Objectives []Objective

// Objective is one condition. The zero Objective is never held.
type Objective struct {
	text     string // as written, without spaces
	metric   metric
	quantile float64 // between 0 and 1; of metrics with a histogram
	operator string
	limit    float64 // in the unit of the metric's kind
}

// metric is one thing that can be asked for.
type metric struct {
	name  string
	kind  kind
	hist  string                               // name_pNN reads this histogram
	value func(*result.Result) (float64, bool) // otherwise; false: no data
}

// kind is what a metric counts in.
type kind int

const (
	kindCount kind = iota
	kindRatio      // 1 is all
	kindSeconds
	kindRate // bit/s
)

// unitsOf says which units a limit may have, and their factor.
func unitsOf(k kind) map[string]float64 {
	switch k {
	case kindRatio:
		return map[string]float64{"": 1, "%": 0.01}
	case kindSeconds:
		return map[string]float64{"ms": 0.001, "s": 1}
	default:
		return map[string]float64{"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
	}
}

// unitHint is how a person is told about unitsOf.
func unitHint(k kind) string {
	switch k {
	case kindRatio:
		return "in %, like 0.1%"
	case kindSeconds:
		return "in ms or s, like 2s"
	case kindRate:
		return "in bit/s, like 800M"
	default:
		return "a plain number, like 10 or 2k"
	}
}

func metrics() []metric {
	return []metric{
		{name: "stall_ratio", kind: kindRatio, value: (*result.Result).StallRatio},
		{name: "stalls", value: func(r *result.Result) (float64, bool) {
			return float64(r.Viewers.Stalls), watched(r)
		}},
		{name: "longest_stall", kind: kindSeconds, value: func(r *result.Result) (float64, bool) {
			return r.Viewers.Longest.Seconds(), watched(r)
		}},
		{name: "start", kind: kindSeconds, hist: result.HistStart},
		{name: "ttfb", kind: kindSeconds, hist: result.HistTTFB},
		{name: "segment", kind: kindSeconds, hist: result.HistSegment},
		{name: "goodput", kind: kindRate, value: (*result.Result).Goodput},
		{name: "errors", value: func(r *result.Result) (float64, bool) {
			n := r.ErrorCount()
			return float64(n), n > 0 || r.Viewers.Requests+r.Viewers.Connects > 0
		}},
		{name: "never_started", value: func(r *result.Result) (float64, bool) {
			return float64(r.NeverStarted()), r.Viewers.Arrived > 0
		}},
	}
}

func watched(r *result.Result) bool { return r.Viewers.Watched+r.Viewers.Stalled > 0 }

// Parse reads objectives separated by commas. Spaces around metrics, operators
// and limits are allowed. Empty text is an error: a caller without objectives
// does not parse.
func Parse(text string) (Objectives, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("objectives of %d characters: at most %d are read", len(text), maxText)
	}
	var all Objectives
	for part := range strings.SplitSeq(text, ",") {
		o, err := parse(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	if len(all) > maxObjectives {
		return nil, fmt.Errorf("%d objectives: at most %d are kept", len(all), maxObjectives)
	}
	return all, nil
}

func parse(text string) (Objective, error) {
	if text == "" {
		return Objective{}, fmt.Errorf("an objective is empty: write them like stall_ratio<0.1%%,start_p95<2s")
	}
	at := strings.IndexAny(text, "<>")
	if at < 0 {
		return Objective{}, fmt.Errorf("objective %q has no <, <=, > or >=: write it like start_p95<2s", text)
	}
	name, rest := strings.TrimSpace(text[:at]), text[at:]
	o := Objective{operator: rest[:1]}
	if strings.HasPrefix(rest[1:], "=") {
		o.operator = rest[:2]
	}
	limit := strings.TrimSpace(rest[len(o.operator):])

	var err error
	if o.metric, o.quantile, err = findMetric(name); err != nil {
		return Objective{}, fmt.Errorf("objective %q: %w", text, err)
	}
	if o.limit, err = parseLimit(limit, o.metric.kind); err != nil {
		return Objective{}, fmt.Errorf("objective %q: %w", text, err)
	}
	o.text = name + o.operator + limit
	return o, nil
}

func findMetric(name string) (metric, float64, error) {
	var known []string
	for _, m := range metrics() {
		if m.hist == "" {
			if name == m.name {
				return m, 0, nil
			}
			known = append(known, m.name)
			continue
		}
		known = append(known, m.name+"_p95")
		percent, found := strings.CutPrefix(name, m.name+"_p")
		if !found {
			continue
		}
		p, ok := plainNumber(percent)
		if !ok || p <= 0 || p > 100 {
			return metric{}, 0, fmt.Errorf("percentile p%s is not between p0 and p100: write %s_p95", percent, m.name)
		}
		return m, p / 100, nil
	}
	return metric{}, 0, fmt.Errorf("no metric is called %q: there are %s", name, strings.Join(known, ", "))
}

func parseLimit(text string, k kind) (float64, error) {
	end := strings.LastIndexAny(text, "0123456789.") + 1
	factor, known := unitsOf(k)[strings.TrimSpace(text[end:])]
	v, ok := plainNumber(text[:end])
	if !known || !ok {
		return 0, fmt.Errorf("the limit %q cannot be read: it is %s", text, unitHint(k))
	}
	return v * factor, nil
}

// plainNumber reads digits with at most one point, without sign, exponent and
// the words that strconv takes for numbers.
func plainNumber(text string) (float64, bool) {
	if strings.Trim(text, "0123456789.") != "" || len(text) > 20 {
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil
}

// String writes the objectives so that Parse reads them again.
func (o Objectives) String() string {
	var texts []string
	for _, one := range o {
		texts = append(texts, one.text)
	}
	return strings.Join(texts, ",")
}

// Evaluate compares a run with each objective, in their order.
func (o Objectives) Evaluate(r *result.Result) []result.Verdict {
	var all []result.Verdict
	for _, one := range o {
		all = append(all, one.evaluate(r))
	}
	return all
}

func (o Objective) evaluate(r *result.Result) result.Verdict {
	v := result.Verdict{Objective: o.text, NoData: true}
	value, ok := o.measure(r)
	if !ok || math.IsNaN(value) || math.IsInf(value, 0) {
		return v
	}
	v.NoData, v.Value = false, value
	switch o.operator {
	case "<":
		v.Held = value < o.limit
	case "<=":
		v.Held = value <= o.limit
	case ">":
		v.Held = value > o.limit
	case ">=":
		v.Held = value >= o.limit
	}
	return v
}

func (o Objective) measure(r *result.Result) (float64, bool) {
	if o.metric.value != nil {
		return o.metric.value(r)
	}
	h := r.Hists[o.metric.hist]
	return h.Quantile(o.quantile).Seconds(), h.Count() > 0
}

// Held says whether every objective was held; false if there are none.
func Held(verdicts []result.Verdict) bool {
	return len(verdicts) > 0 && !slices.ContainsFunc(verdicts, func(v result.Verdict) bool { return !v.Held })
}

// Measured writes what a verdict found, with the unit of its objective.
func Measured(v result.Verdict) string {
	if v.NoData {
		return "no data"
	}
	o, err := parse(v.Objective)
	if err != nil {
		return units.Number(v.Value)
	}
	switch o.metric.kind {
	case kindRatio:
		return units.Percent(v.Value)
	case kindSeconds:
		return units.Duration(time.Duration(v.Value * float64(time.Second)))
	case kindRate:
		return units.Rate(v.Value)
	default:
		return units.Number(v.Value)
	}
}
