package result

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestRecorderConcurrently(t *testing.T) {
	rec := NewRecorder()
	const viewers, rounds = 16, 100
	var wait sync.WaitGroup
	for range viewers {
		wait.Go(func() {
			for i := range rounds {
				rec.Hist(HistTTFB).Record(time.Duration(i+1) * time.Millisecond)
				rec.Add(func(v *Viewers) { v.Requests++; v.Bytes += 10 })
				rec.Error("timeout")
				rec.Bitrate(8_000_000)
				rec.Sample(Sample{Playing: 1})
				if i%50 == 0 {
					rec.Result()
					rec.Viewers()
				}
			}
		})
	}
	wait.Wait()
	res := rec.Result()
	const n = viewers * rounds
	if res.Schema != Schema || res.Viewers.Requests != n || res.Viewers.Bytes != 10*n || res.Hists[HistTTFB].Count() != n ||
		res.Errors["timeout"] != n || res.Bitrates["8000000"] != n || len(res.Samples) != n || rec.Viewers() != res.Viewers {
		t.Errorf("after %d rounds: %+v, errors %v, bitrates %v, %d samples, %d times", n, res.Viewers, res.Errors, res.Bitrates, len(res.Samples), res.Hists[HistTTFB].Count())
	}
}

func TestRecorderResultIsACopy(t *testing.T) {
	rec := NewRecorder()
	rec.Error("a")
	rec.Bitrate(1)
	rec.Sample(Sample{Playing: 1})
	rec.Hist(HistStart).Record(time.Second)
	res := rec.Result()
	rec.Error("a")
	rec.Bitrate(1)
	rec.Sample(Sample{})
	rec.Hist(HistStart).Record(time.Second)
	rec.Add(func(v *Viewers) { v.Stalls++ })
	if res.ErrorCount() != 1 || res.Bitrates["1"] != 1 || len(res.Samples) != 1 || res.Hists[HistStart].Count() != 1 || res.Viewers.Stalls != 0 {
		t.Errorf("the result changed after it was taken: %+v", res)
	}
}

func TestRecorderHasEveryHistogram(t *testing.T) {
	res := NewRecorder().Result()
	if len(res.Hists) != len(histNames()) {
		t.Errorf("%d histograms for %d names", len(res.Hists), len(histNames()))
	}
	for _, name := range histNames() {
		if res.Hists[name] == nil {
			t.Errorf("no histogram %s", name)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a histogram of an unknown name was given")
		}
	}()
	NewRecorder().Hist("tfbb")
}

func TestRecorderBounds(t *testing.T) {
	rec := NewRecorder()
	for i := range 10 * maxKeys {
		rec.Error(fmt.Sprint("code ", i))
		rec.Bitrate(int64(i))
	}
	rec.Error("code 0")
	for range maxSamples + 10 {
		rec.Sample(Sample{})
	}
	res := rec.Result()
	if len(res.Errors) != maxKeys+1 || res.Errors[otherKey] != 9*maxKeys || res.Errors["code 0"] != 2 || res.ErrorCount() != 10*maxKeys+1 {
		t.Errorf("%d codes, %d of them other, %d the first", len(res.Errors), res.Errors[otherKey], res.Errors["code 0"])
	}
	if len(res.Bitrates) != maxKeys+1 || res.Bitrates[strconv.Itoa(maxKeys-1)] != 1 {
		t.Errorf("%d bitrates", len(res.Bitrates))
	}
	if len(res.Samples) != maxSamples {
		t.Errorf("%d samples", len(res.Samples))
	}
}

func TestDerivedFigures(t *testing.T) {
	var r Result
	if _, ok := r.StallRatio(); ok {
		t.Error("nobody watched, yet there is a stall ratio")
	}
	if _, ok := r.Goodput(); ok {
		t.Error("no time, yet there is a goodput")
	}
	r = Result{Took: 10 * time.Second, Viewers: Viewers{Arrived: 5, Started: 3, Watched: 9 * time.Second, Stalled: time.Second, Bytes: 1000}}
	if v, ok := r.StallRatio(); !ok || v != 0.1 {
		t.Errorf("stall ratio %v, %v", v, ok)
	}
	if v, ok := r.Goodput(); !ok || v != 800 {
		t.Errorf("goodput %v, %v", v, ok)
	}
	if r.NeverStarted() != 2 {
		t.Errorf("%d never started", r.NeverStarted())
	}
}
