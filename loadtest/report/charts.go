package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// charts are the plots of a run, those about films first; none without samples.
func charts(r *result.Result) []*chart {
	all := buckets(r.Samples)
	if len(all) == 0 {
		return nil
	}
	list := []*chart{bufferChart(all), viewersChart(all), stallsChart(all), goodputChart(all), cpuChart(all, r), memoryChart(all, r)}
	if r.Relay != nil {
		list = append(list, jitterChart(all), goroutinesChart(all))
	}
	for i, c := range list {
		c.id = fmt.Sprintf("chart%d", i+1)
		c.end = r.Took
		c.each = len(all[0].samples)
		for _, b := range all {
			c.at = append(c.at, b.at)
		}
	}
	return list
}

func bufferChart(all []bucket) *chart {
	lowest := func(s result.Sample) float64 { return s.Buffer[0] }
	median := func(s result.Sample) float64 { return s.Buffer[1] }
	low, middle := extreme(all, math.Min, lowest), average(all, median)
	typical, _ := summary(all, median)
	least, _ := summary(all, lowest)
	high := extreme(all, math.Max, func(s result.Sample) float64 { return s.Buffer[2] })
	return &chart{
		Title: "Content ahead", Unit: "seconds in the buffer", shape: shapeBand,
		lines: []series{{"lowest 5%", "accent", low}, {"median viewer", "accent", middle}, {"highest 5%", "accent", high}},
		Note:  fmt.Sprintf("On average the median viewer had %s s ahead, the lowest 5%% at most %s s.", units.Number(typical), units.Number(least)),
	}
}

func viewersChart(all []bucket) *chart {
	stalled := average(all, func(s result.Sample) float64 { return float64(s.Stalled) })
	playing := average(all, func(s result.Sample) float64 { return float64(s.Playing) })
	starting := average(all, func(s result.Sample) float64 { return float64(s.Starting) })
	_, most := summary(all, func(s result.Sample) float64 { return float64(s.Playing + s.Starting + s.Stalled) })
	_, worst := summary(all, func(s result.Sample) float64 { return float64(s.Stalled) })
	stalls := fmt.Sprintf("at most %s of them stalled", units.Number(worst))
	if worst == 0 {
		stalls = "none of them stalled"
	}
	return &chart{
		Title: "Viewers", Unit: "number at once", shape: shapeStack,
		lines: []series{{"stalled", "alarm", stalled}, {"playing", "accent", playing}, {"starting", "quiet", starting}},
		Note:  fmt.Sprintf("At most %s viewers at once; %s.", units.Number(most), stalls),
	}
}

func stallsChart(all []bucket) *chart {
	stalls := average(all, func(s result.Sample) float64 { return float64(s.Stalls) })
	var total int64
	for _, b := range all {
		for _, s := range b.samples {
			total += s.Stalls
		}
	}
	note := fmt.Sprintf("%d stalls began.", total)
	if total == 0 {
		note = "No film stalled."
	}
	return &chart{Title: "Stalls that began", Unit: "a second", shape: shapeBars, lines: []series{{"stalls", "alarm", stalls}}, Note: note}
}

func goodputChart(all []bucket) *chart {
	goodput := func(s result.Sample) float64 { return s.Goodput }
	bits := average(all, goodput)
	usual, most := summary(all, goodput)
	factor, unit := 1e-6, "Mbit/s"
	if slices.Max(bits) >= 2e9 {
		factor, unit = 1e-9, "Gbit/s"
	}
	return &chart{
		Title: "Goodput of all viewers", Unit: unit, lines: []series{{"goodput", "accent", scaled(bits, factor)}},
		Note: fmt.Sprintf("%s on average, %s at most.", units.Rate(usual), units.Rate(most)),
	}
}

func cpuChart(all []bucket, r *result.Result) *chart {
	return usageChart(all, r, "CPU", "cores busy", 1,
		func(u result.Usage) float64 { return u.CPU.Seconds() },
		func(v float64) string { return units.Number(v) + " cores" })
}

func memoryChart(all []bucket, r *result.Result) *chart {
	return usageChart(all, r, "Memory", "MiB resident", 1.0/(1<<20),
		func(u result.Usage) float64 { return float64(u.Memory) }, units.Bytes)
}

// usageChart draws what the relay, if it was looked at, and blindload take.
func usageChart(all []bucket, r *result.Result, title, unit string, factor float64, f func(result.Usage) float64, write func(float64) string) *chart {
	c := &chart{Title: title, Unit: unit}
	var notes []string
	add := func(name, class string, value func(result.Sample) float64) {
		c.lines = append(c.lines, series{name, class, scaled(average(all, value), factor)})
		usual, most := summary(all, value)
		notes = append(notes, fmt.Sprintf("%s: %s on average, %s at most.", name, write(usual), write(most)))
	}
	if r.Relay != nil {
		add("relay", "accent", func(s result.Sample) float64 { return f(s.Relay) })
	} else {
		c.Title += " of blindload"
	}
	add("blindload", "other", func(s result.Sample) float64 { return f(s.Load) })
	c.Note = strings.Join(notes, " ")
	return c
}

func jitterChart(all []bucket) *chart {
	buffered := func(s result.Sample) float64 { return float64(s.Relay.Buffered) }
	held := average(all, buffered)
	usual, most := summary(all, buffered)
	return &chart{
		Title: "In the relay's jitter buffers", Unit: "MiB", lines: []series{{"buffered", "accent", scaled(held, 1.0/(1<<20))}},
		Note: fmt.Sprintf("%s on average, %s at most.", units.Bytes(usual), units.Bytes(most)),
	}
}

func goroutinesChart(all []bucket) *chart {
	goroutines := func(s result.Sample) float64 { return float64(s.Relay.Goroutines) }
	streams := func(s result.Sample) float64 { return float64(s.Relay.Streams) }
	_, mostGoroutines := summary(all, goroutines)
	_, mostStreams := summary(all, streams)
	return &chart{
		Title: "Work in the relay", Unit: "number at once",
		lines: []series{{"goroutines", "other", average(all, goroutines)}, {"streams", "accent", average(all, streams)}},
		Note:  fmt.Sprintf("At most %s goroutines and %s streams.", units.Number(mostGoroutines), units.Number(mostStreams)),
	}
}
