package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMergeOfPartsIsWhole records the same run once as a whole and once spread
// over three machines.
func TestMergeOfPartsIsWhole(t *testing.T) {
	for seed := range uint64(3) {
		random := rand.New(rand.NewPCG(seed, 3))
		whole := result.NewRecorder()
		parts := []*result.Recorder{result.NewRecorder(), result.NewRecorder(), result.NewRecorder()}
		names := slices.Sorted(maps.Keys(whole.Result().Hists))
		for range 800 {
			part := parts[random.IntN(len(parts))]
			name, d := names[random.IntN(len(names))], time.Duration(random.ExpFloat64()*float64(time.Second))
			code, bits := fmt.Sprint(random.IntN(5)), int64(random.IntN(4))*1e6
			seen := result.Viewers{}
			fields := reflect.ValueOf(&seen).Elem()
			for i := range fields.NumField() {
				fields.Field(i).SetInt(random.Int64N(1000))
			}
			for _, rec := range []*result.Recorder{whole, part} {
				rec.Hist(name).Record(d)
				rec.Error(code)
				rec.Bitrate(bits)
				rec.Add(func(v *result.Viewers) {
					sum := reflect.ValueOf(v).Elem()
					longest := max(v.Longest, seen.Longest)
					for i := range sum.NumField() {
						sum.Field(i).SetInt(sum.Field(i).Int() + fields.Field(i).Int())
					}
					v.Longest = longest
				})
			}
		}
		for at := range 10 {
			var sum result.Sample
			sum.At = time.Duration(at) * time.Second
			for _, rec := range parts {
				s := result.Sample{At: sum.At + time.Duration(random.IntN(400))*time.Millisecond, Starting: random.IntN(9), Playing: random.IntN(9),
					Stalled: random.IntN(9), Goodput: float64(random.IntN(1e9)), Stalls: random.Int64N(9), Load: result.Usage{CPU: 5, Memory: 6, Goroutines: 7},
					Relay: result.Usage{CPU: 8, Memory: 9, Buffered: 1, Streams: 2, Packets: 3}}
				rec.Sample(s)
				sum.Starting, sum.Playing, sum.Stalled = sum.Starting+s.Starting, sum.Playing+s.Playing, sum.Stalled+s.Stalled
				sum.Goodput += s.Goodput
				sum.Stalls += s.Stalls
				sum.Load, sum.Relay = addUsage(sum.Load, s.Load), addUsage(sum.Relay, s.Relay)
			}
			whole.Sample(sum)
		}
		var runs []*result.Result
		for i, rec := range parts {
			r := rec.Result()
			r.Title, r.Took, r.Machine.CPU = "x", time.Minute, fmt.Sprint(i)
			runs = append(runs, r)
		}
		before := encode(t, runs)
		got, err := Merge(runs, false)
		if err != nil {
			t.Fatal(err)
		}
		want := whole.Result()
		if encode(t, got.Hists) != encode(t, want.Hists) || got.Viewers != want.Viewers || !maps.Equal(got.Errors, want.Errors) || !maps.Equal(got.Bitrates, want.Bitrates) || !reflect.DeepEqual(got.Samples, want.Samples) {
			t.Errorf("seed %d: the sum is\n%s\nthe whole\n%s", seed, encode(t, got), encode(t, want))
		}
		if len(got.Merged) != 3 || got.Merged[2].CPU != "2" || got.Took != time.Minute || got.Relay != nil {
			t.Errorf("machines %v, took %v, relay %v", got.Merged, got.Took, got.Relay)
		}
		if encode(t, runs) != before {
			t.Error("the parts were changed")
		}
		again, err := Merge([]*result.Result{got, runs[0]}, false)
		if err != nil || len(again.Merged) != 4 {
			t.Errorf("a sum and another: machines %v, error %v", again.Merged, err)
		}
	}
}

func TestMergeRefuses(t *testing.T) {
	if _, err := Merge(nil, true); err == nil {
		t.Error("nothing was merged")
	}
	a, b := made(t, 1, 10*time.Second), made(t, 2, 10*time.Second)
	b.Title = "50 viewers"
	if _, err := Merge([]*result.Result{a, b}, false); err == nil || !strings.Contains(err.Error(), "50 viewers") {
		t.Errorf("different titles: %v", err)
	}
	if _, err := Merge([]*result.Result{a, b}, true); err != nil {
		t.Errorf("different titles, allowed: %v", err)
	}
	b.SLO[0].Objective = "beauty>9"
	if r, err := Merge([]*result.Result{a, b}, true); err == nil || r != nil {
		t.Errorf("an objective nobody knows: %v", err)
	}
}

func TestMergeEvaluatesObjectivesAnew(t *testing.T) {
	a, b := made(t, 1, time.Minute), made(t, 2, time.Minute)
	for _, r := range []*result.Result{a, b} {
		r.SLO = []result.Verdict{{Objective: "goodput>=900M", Value: 1}}
	}
	sum, err := Merge([]*result.Result{a, b}, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.SLO) != 1 || !sum.SLO[0].Held {
		t.Errorf("two runs of about 670 Mbit/s have %+v", sum.SLO)
	}
}

func TestMergeAlignsByTheClock(t *testing.T) {
	start := time.Date(2026, 7, 4, 20, 15, 0, 0, time.UTC)
	run := func(late time.Duration, at ...time.Duration) *result.Result {
		r := result.NewRecorder().Result()
		r.Started, r.Took = start.Add(late), 10*time.Second
		for _, t := range at {
			r.Samples = append(r.Samples, result.Sample{At: t, Playing: 1})
		}
		return r
	}
	// The second run began 2.1 s later, and its second sample came early.
	sum, err := Merge([]*result.Result{
		run(2100*time.Millisecond, time.Second, 1200*time.Millisecond, 3*time.Second),
		run(0, time.Second, 2*time.Second, 3*time.Second, 4*time.Second, 5*time.Second),
	}, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for i, s := range sum.Samples {
		if s.At != time.Duration(i+1)*time.Second {
			t.Errorf("sample %d is at %v", i, s.At)
		}
		got = append(got, s.Playing)
	}
	if want := []int{1, 1, 2, 2, 2}; !reflect.DeepEqual(got, want) {
		t.Errorf("playing %v, want %v", got, want)
	}
	if !sum.Started.Equal(start) || sum.Took != 12100*time.Millisecond {
		t.Errorf("started %v, took %v", sum.Started, sum.Took)
	}
}

func TestMergeCountsOneRelayOnce(t *testing.T) {
	run := func(at string, cpu time.Duration) *result.Result {
		r := result.NewRecorder().Result()
		r.RelayAt, r.Relay = at, &result.Usage{CPU: cpu, Memory: 100}
		r.Samples = []result.Sample{{At: time.Second, Relay: *r.Relay}}
		return r
	}
	for _, c := range []struct {
		runs   []*result.Result
		cpu    time.Duration
		memory int64
	}{
		{[]*result.Result{run("a:1", 5), run("a:1", 7)}, 7, 100},
		{[]*result.Result{run("a:1", 5), run("b:1", 7)}, 12, 200},
		{[]*result.Result{run("", 5), run("", 7)}, 12, 200},
		{[]*result.Result{run("", 5), run("a:1", 7), run("a:1", 1)}, 12, 200},
	} {
		sum, err := Merge(c.runs, false)
		if err != nil {
			t.Fatal(err)
		}
		if sum.Relay.CPU != c.cpu || sum.Relay.Memory != c.memory || sum.Samples[0].Relay != *sum.Relay {
			t.Errorf("total %+v, sample %+v; want CPU %d, memory %d", *sum.Relay, sum.Samples[0].Relay, c.cpu, c.memory)
		}
	}
}

func TestMergeOfBuffers(t *testing.T) {
	run := func(playing int, low, middle, high float64) *result.Result {
		r := result.NewRecorder().Result()
		r.Samples = []result.Sample{{At: time.Second, Playing: playing, Buffer: [3]float64{low, middle, high}}}
		return r
	}
	sum, err := Merge([]*result.Result{run(0, 0, 0, 0), run(30, 10, 20, 28), run(10, 2, 12, 30)}, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sum.Samples[0].Buffer, [3]float64{2, 18, 30}; got != want {
		t.Errorf("buffer %v, want %v", got, want)
	}
}
