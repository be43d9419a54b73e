package result

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// near says whether two durations are equal to three digits.
func near(a, b time.Duration) bool {
	return math.Abs(float64(a-b)) <= 0.002*math.Abs(float64(b))+float64(time.Microsecond)
}

func randomDurations(seed uint64, n int) []time.Duration {
	random := rand.New(rand.NewPCG(seed, 0))
	all := make([]time.Duration, n)
	for i := range all {
		all[i] = time.Duration(math.Exp(random.Float64()*math.Log(float64(time.Minute/time.Microsecond)))) * time.Microsecond
	}
	return all
}

func TestHistAgreesWithSortedValues(t *testing.T) {
	values := randomDurations(1, 10_000)
	h := NewHist()
	var sum time.Duration
	for _, v := range values {
		h.Record(v)
		sum += v
	}
	slices.Sort(values)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1} {
		want := values[int(math.Ceil(q*float64(len(values))))-1]
		if got := h.Quantile(q); !near(got, want) {
			t.Errorf("quantile %v is %v, sorted values say %v", q, got, want)
		}
	}
	if got, want := h.Mean(), sum/time.Duration(len(values)); !near(got, want) {
		t.Errorf("mean %v, want %v", got, want)
	}
	if got := h.Min(); !near(got, values[0]) {
		t.Errorf("shortest %v, want %v", got, values[0])
	}
	if got, want := h.Max(), values[len(values)-1]; !near(got, want) {
		t.Errorf("longest %v, want %v", got, want)
	}
	if h.Count() != 10_000 {
		t.Errorf("count %d", h.Count())
	}
}

func TestHistEnds(t *testing.T) {
	for _, c := range []struct{ in, want time.Duration }{
		{-time.Second, time.Microsecond},
		{0, time.Microsecond},
		{999, time.Microsecond},
		{time.Hour, time.Hour},
		{time.Hour + 1, time.Hour},
		{math.MaxInt64, time.Hour},
	} {
		h := NewHist()
		h.Record(c.in)
		if got := h.Quantile(1); !near(got, c.want) || h.Count() != 1 {
			t.Errorf("%d counts as %v, %d times; want %v once", c.in, got, h.Count(), c.want)
		}
	}
}

func TestEmptyHist(t *testing.T) {
	for name, h := range map[string]*Hist{"nil": nil, "new": NewHist()} {
		if h.Count() != 0 || h.Mean() != 0 || h.Min() != 0 || h.Max() != 0 || h.Quantile(0.5) != 0 || h.Clone().Count() != 0 {
			t.Errorf("a %s histogram has values", name)
		}
	}
}

func TestRecordCorrectedAgreesWithHDR(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, 9 * time.Millisecond, 10 * time.Millisecond, 19 * time.Millisecond, 20 * time.Millisecond, 105 * time.Millisecond, time.Second} {
		h, want := NewHist(), hdrhistogram.New(histLow, histHigh, histDigits)
		h.RecordCorrected(d, 10*time.Millisecond)
		if err := want.RecordCorrectedValue(int64(d/histUnit), int64(10*time.Millisecond/histUnit)); err != nil {
			t.Fatal(err)
		}
		if !h.h.Equals(want) {
			t.Errorf("%v, corrected: %d values, HDR says %d", d, h.Count(), want.TotalCount())
		}
	}
}

func TestRecordCorrectedIsBounded(t *testing.T) {
	h := NewHist()
	h.RecordCorrected(math.MaxInt64, time.Nanosecond) // would be 3.6 thousand billion steps
	if got, want := h.Count(), int64(time.Hour); got != want {
		t.Errorf("count %d, want %d", got, want)
	}
	if got := h.Quantile(0.5); !near(got, 30*time.Minute) {
		t.Errorf("median of an even fall from 1 h to 0 is %v", got)
	}
	h = NewHist()
	h.RecordCorrected(time.Hour, 0)
	h.RecordCorrected(time.Hour, -1)
	if h.Count() != 2 {
		t.Errorf("no interval, yet %d values", h.Count())
	}
}

func TestHistMergeOfPartsIsWhole(t *testing.T) {
	whole, sum := NewHist(), NewHist()
	parts := []*Hist{NewHist(), NewHist(), NewHist(), nil}
	for i, d := range randomDurations(2, 3000) {
		whole.RecordCorrected(d, time.Second)
		parts[i%3].RecordCorrected(d, time.Second)
	}
	for _, p := range parts {
		sum.Merge(p)
	}
	if !sum.h.Equals(whole.h) {
		t.Errorf("parts have %d values, the whole %d", sum.Count(), whole.Count())
	}
}

func TestHistMergesBothWaysAtOnce(t *testing.T) {
	a, b := NewHist(), NewHist()
	a.Record(time.Second)
	b.Record(time.Minute)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { a.Merge(b) })
		wait.Go(func() { b.Merge(a) })
	}
	wait.Wait() // a deadlock would be found by the test's time limit
	if a.Count() < 5 || b.Count() < 5 {
		t.Errorf("merged counts are %d and %d", a.Count(), b.Count())
	}
}

func TestHistJSONRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 5000} {
		h := NewHist()
		for _, d := range randomDurations(3, n) {
			h.Record(d)
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var back Hist
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if !back.h.Equals(h.h) {
			t.Errorf("%d values came back as %d", n, back.Count())
		}
		again, err := json.Marshal(&back)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("the second writing differs (%v)", err)
		}
	}
}

func TestHistJSONIsReadable(t *testing.T) {
	h := NewHist()
	for i := range 100 {
		h.Record(time.Duration(i+1) * time.Millisecond)
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var form histJSON
	if err := json.Unmarshal(b, &form); err != nil {
		t.Fatal(err)
	}
	if form.Count != 100 || !near(form.P50, 50*time.Millisecond) || !near(form.P90, 90*time.Millisecond) ||
		!near(form.P95, 95*time.Millisecond) || !near(form.P99, 99*time.Millisecond) || !near(form.Max, 100*time.Millisecond) || !near(form.Mean, 50500*time.Microsecond) {
		t.Errorf("summary is %s", b)
	}
}

// encoded returns the HDR text of a histogram of any geometry with one value.
func encoded(t testing.TB, low, high int64, digits int) []byte {
	t.Helper()
	h := hdrhistogram.New(low, high, digits)
	if err := h.RecordValue(low + 1); err != nil {
		t.Fatal(err)
	}
	text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestHistRefusesForeignJSON(t *testing.T) {
	write := func(count int64, raw []byte) string {
		b, err := json.Marshal(histJSON{Count: count, HDR: raw})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good := encoded(t, histLow, histHigh, histDigits)
	if err := new(Hist).UnmarshalJSON([]byte(write(1, good))); err != nil {
		t.Fatalf("our own geometry: %v", err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"another count":  {write(2, good), "changed by hand or is damaged"},
		"more digits":    {write(1, encoded(t, histLow, histHigh, 5)), "with 5 digits"},
		"a wider range":  {write(1, encoded(t, 1, math.MaxInt64/2, 3)), "but this version keeps"},
		"another lowest": {write(1, encoded(t, 1000, histHigh, 3)), "but this version keeps"},
		"nothing":        {write(0, nil), "no HDR data"},
		"cut off":        {write(1, good[:len(good)-6]), "histogram"},
		"no zlib":        {write(1, []byte("0123456789abcdef")), "decompress"},
		"another field":  {`{"count":0,"secret":1}`, "unknown field"},
		"too long":       {`{"hdr_us":"` + strings.Repeat("A", maxEncoded) + `"}`, "at most"},
	} {
		err := new(Hist).UnmarshalJSON([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, c.want)
		}
	}
}

func FuzzHistJSON(f *testing.F) {
	for _, digits := range []int{3, 2, 5} {
		b, err := json.Marshal(histJSON{Count: 1, HDR: encoded(f, histLow, histHigh, digits)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := new(Hist)
		if h.UnmarshalJSON(b) != nil {
			return
		}
		again, err := json.Marshal(h)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back := new(Hist)
		if err := back.UnmarshalJSON(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if back.Count() != h.Count() || back.Max() != h.Max() {
			t.Fatalf("%d values up to %v came back as %d up to %v", h.Count(), h.Max(), back.Count(), back.Max())
		}
	})
}

func BenchmarkHistRecord(b *testing.B) {
	h := NewHist()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h.Record(123 * time.Millisecond)
		}
	})
}

func TestRecordDoesNotAllocate(t *testing.T) {
	rec := NewRecorder()
	h := rec.Hist(HistDelay)
	if n := testing.AllocsPerRun(100, func() {
		h.RecordCorrected(time.Second, 100*time.Millisecond)
		rec.Add(func(v *Viewers) { v.Bytes += 1000 })
	}); n != 0 {
		t.Errorf("recording allocates %v times", n)
	}
}
