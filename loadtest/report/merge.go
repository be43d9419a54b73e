package report

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
)

// Merge adds up runs that went on at the same time on several machines:
// histograms, totals and samples, these by the second on the clock. Rates and
// ratios of the sum follow from its totals. Runs of different titles are refused
// unless mixed. Runs with the same RelayAt looked at one relay: its figures are
// those of the run that saw most of it, second by second.
//
// The band of the buffers cannot be added up; the sum has the mean of the
// medians, weighed with the viewers who play, between the lowest and the highest
// edge. Objectives of any run are evaluated anew.
func Merge(all []*result.Result, mixed bool) (*result.Result, error) {
	if len(all) == 0 {
		return nil, errors.New("merge: no runs are given")
	}
	for _, r := range all {
		if r.Title != all[0].Title && !mixed {
			return nil, fmt.Errorf("merge: one run is %q and another %q: they measured different things, and their sum means nothing unless you say that it does", all[0].Title, r.Title)
		}
	}
	sum := result.NewRecorder().Result()
	sum.Title, sum.Scenario, sum.Machine = all[0].Title, all[0].Scenario, all[0].Machine
	sum.RelayAt, sum.RelayVersion = all[0].RelayAt, all[0].RelayVersion
	sum.Started = all[0].Started
	for _, r := range all {
		if r.Started.Before(sum.Started) {
			sum.Started = r.Started
		}
	}
	for _, r := range all {
		sum.Took = max(sum.Took, r.Started.Add(r.Took).Sub(sum.Started))
		addTotals(sum, r)
	}
	sum.Relay = relayTotal(all)
	sum.Samples = addSamples(all, sum.Started)
	if err := evaluateAnew(sum, all); err != nil {
		return nil, err
	}
	return sum, nil
}

func addTotals(sum, r *result.Result) {
	addViewers(&sum.Viewers, r.Viewers)
	for name, h := range r.Hists {
		if sum.Hists[name] == nil {
			sum.Hists[name] = result.NewHist()
		}
		sum.Hists[name].Merge(h)
	}
	for code, n := range r.Errors {
		sum.Errors[code] += n
	}
	for bits, n := range r.Bitrates {
		sum.Bitrates[bits] += n
	}
	sum.Load = addUsage(sum.Load, r.Load)
	sum.Links = addLinks(sum.Links, r.Links)
	if len(r.Merged) > 0 {
		sum.Merged = append(sum.Merged, r.Merged...)
	} else {
		sum.Merged = append(sum.Merged, r.Machine)
	}
	if sum.Bottleneck == "" {
		sum.Bottleneck = r.Bottleneck
	}
}

func addViewers(sum *result.Viewers, v result.Viewers) {
	sum.Arrived += v.Arrived
	sum.Started += v.Started
	sum.Left += v.Left
	sum.Watched += v.Watched
	sum.Stalls += v.Stalls
	sum.Stalled += v.Stalled
	sum.Longest = max(sum.Longest, v.Longest)
	sum.Bytes += v.Bytes
	sum.Verified += v.Verified
	sum.Corrupt += v.Corrupt
	sum.Requests += v.Requests
	sum.Connects += v.Connects
	sum.Switches += v.Switches
}

func addUsage(a, b result.Usage) result.Usage {
	return result.Usage{
		CPU: a.CPU + b.CPU, Memory: a.Memory + b.Memory, Goroutines: a.Goroutines + b.Goroutines,
		Buffered: a.Buffered + b.Buffered, Streams: a.Streams + b.Streams, Packets: a.Packets + b.Packets,
	}
}

func largerUsage(a, b result.Usage) result.Usage {
	return result.Usage{
		CPU: max(a.CPU, b.CPU), Memory: max(a.Memory, b.Memory), Goroutines: max(a.Goroutines, b.Goroutines),
		Buffered: max(a.Buffered, b.Buffered), Streams: max(a.Streams, b.Streams), Packets: max(a.Packets, b.Packets),
	}
}

// relaySum adds up relays, each of them once.
type relaySum struct {
	own   result.Usage            // of relays that blindload started
	known map[string]result.Usage // by RelayAt
}

func (s *relaySum) add(at string, u result.Usage) {
	if at == "" {
		s.own = addUsage(s.own, u)
		return
	}
	if s.known == nil {
		s.known = make(map[string]result.Usage)
	}
	s.known[at] = largerUsage(s.known[at], u)
}

func (s *relaySum) total() result.Usage {
	total := s.own
	for _, u := range s.known {
		total = addUsage(total, u)
	}
	return total
}

func relayTotal(all []*result.Result) *result.Usage {
	var relays relaySum
	looked := false
	for _, r := range all {
		if r.Relay != nil {
			relays.add(r.RelayAt, *r.Relay)
			looked = true
		}
	}
	if !looked {
		return nil
	}
	total := relays.total()
	return &total
}

// second gathers the samples of one second.
type second struct {
	sum    result.Sample
	relays relaySum
	played float64 // viewers behind sum.Buffer
}

func addSamples(all []*result.Result, started time.Time) []result.Sample {
	seconds := make(map[int64]*second)
	for _, r := range all {
		last := int64(-1)
		for _, s := range r.Samples {
			at := int64((r.Started.Sub(started) + s.At).Round(time.Second) / time.Second)
			at = max(at, last+1) // two early samples are not one second with twice the viewers
			last = at
			if seconds[at] == nil {
				seconds[at] = &second{sum: result.Sample{At: time.Duration(at) * time.Second}}
			}
			seconds[at].add(r.RelayAt, s)
		}
	}
	var sums []result.Sample
	for _, s := range seconds {
		s.sum.Relay = s.relays.total()
		sums = append(sums, s.sum)
	}
	slices.SortFunc(sums, func(a, b result.Sample) int { return int(a.At/time.Second) - int(b.At/time.Second) })
	return sums
}

func (s *second) add(relay string, one result.Sample) {
	s.sum.Starting += one.Starting
	s.sum.Playing += one.Playing
	s.sum.Stalled += one.Stalled
	s.sum.Goodput += one.Goodput
	s.sum.Stalls += one.Stalls
	s.sum.Load = addUsage(s.sum.Load, one.Load)
	s.relays.add(relay, one.Relay)
	n := float64(one.Playing + one.Stalled)
	if n == 0 {
		return
	}
	if s.played == 0 {
		s.sum.Buffer = one.Buffer
	} else {
		s.sum.Buffer[0] = min(s.sum.Buffer[0], one.Buffer[0])
		s.sum.Buffer[1] = (s.sum.Buffer[1]*s.played + one.Buffer[1]*n) / (s.played + n)
		s.sum.Buffer[2] = max(s.sum.Buffer[2], one.Buffer[2])
	}
	s.played += n
}

func evaluateAnew(sum *result.Result, all []*result.Result) error {
	var seen []string
	for _, r := range all {
		for _, v := range r.SLO {
			if slices.Contains(seen, v.Objective) {
				continue
			}
			seen = append(seen, v.Objective)
			objectives, err := slo.Parse(v.Objective)
			if err != nil {
				return fmt.Errorf("merge: %w", err)
			}
			sum.SLO = append(sum.SLO, objectives.Evaluate(sum)...)
		}
	}
	return nil
}

// addLinks adds what emulated lines did; nil is nothing.
func addLinks(a, b *result.Links) *result.Links {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return &result.Links{
		Packets: a.Packets + b.Packets, Lost: a.Lost + b.Lost, Dropped: a.Dropped + b.Dropped,
		Late: max(a.Late, b.Late), LateMax: max(a.LateMax, b.LateMax),
	}
}
