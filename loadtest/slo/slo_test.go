package slo

import (
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run is a run with 100 start-ups of 10 ms to 1 s.
func run() *result.Result {
	rec := result.NewRecorder()
	for i := range 100 {
		rec.Hist(result.HistStart).Record(time.Duration(i+1) * 10 * time.Millisecond)
	}
	rec.Hist(result.HistTTFB).Record(30 * time.Millisecond)
	rec.Error("timeout")
	rec.Error("503")
	rec.Add(func(v *result.Viewers) {
		*v = result.Viewers{Arrived: 10, Started: 8, Watched: 999 * time.Second, Stalled: time.Second, Stalls: 2,
			Longest: 700 * time.Millisecond, Bytes: 1e9, Requests: 50}
	})
	r := rec.Result()
	r.Took = 10 * time.Second
	return r
}

func TestEvaluate(t *testing.T) {
	for _, c := range []struct {
		objective string
		held      bool
		measured  string
	}{
		{"stall_ratio<0.1%", false, "0.100%"},
		{"stall_ratio<=0.1%", true, "0.100%"},
		{"stall_ratio<0.002", true, "0.100%"},
		{"stalls<=2", true, "2"},
		{"stalls<2", false, "2"},
		{"longest_stall<1s", true, "700 ms"},
		{"longest_stall<0.5s", false, "700 ms"},
		{"start_p50<600ms", true, "500 ms"},
		{"start_p95<900ms", false, "950 ms"},
		{"start_p99.9<2s", true, "1.00 s"},
		{"start_p100>0.9s", true, "1.00 s"},
		{"ttfb_p95<50ms", true, "30.0 ms"},
		{"segment_p95<50s", false, "no data"},
		{"goodput>=800M", true, "800 Mbit/s"},
		{"goodput>0.8G", false, "800 Mbit/s"},
		{"goodput > 799999k", true, "800 Mbit/s"},
		{"errors<=2", true, "2"},
		{"errors<2", false, "2"},
		{"never_started<1", false, "2"},
		{" never_started <= 2 ", true, "2"},
	} {
		o, err := Parse(c.objective)
		if err != nil {
			t.Errorf("%s: %v", c.objective, err)
			continue
		}
		v := o.Evaluate(run())
		if len(v) != 1 || v[0].Held != c.held || Measured(v[0]) != c.measured || v[0].Objective != o.String() {
			t.Errorf("%s: got %+v, measured %q; want held %v, %q", c.objective, v, Measured(v[0]), c.held, c.measured)
		}
	}
}

func TestNoDataIsNotHeld(t *testing.T) {
	empty := result.NewRecorder().Result()
	for _, r := range []*result.Result{empty, {}} {
		for _, text := range []string{
			"stall_ratio<100%", "stalls<1G", "longest_stall<9999s", "start_p95<9999s", "ttfb_p50>=0s", "segment_p99>=0ms",
			"goodput>=0", "errors<1000", "never_started<1000",
		} {
			o, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if v := o.Evaluate(r)[0]; v.Held || !v.NoData || v.Value != 0 {
				t.Errorf("%s holds for a run of nothing: %+v", text, v)
			}
		}
	}
	if v := (Objectives{{}}).Evaluate(&result.Result{}); v[0].Held {
		t.Error("the zero Objective is held")
	}
}

func TestErrorsAreDataWithoutRequests(t *testing.T) {
	r := result.NewRecorder().Result()
	r.Errors["refused"] = 3
	o, err := Parse("errors<1")
	if err != nil {
		t.Fatal(err)
	}
	if v := o.Evaluate(r)[0]; v.Held || v.NoData || v.Value != 3 {
		t.Errorf("got %+v", v)
	}
}

func TestHeld(t *testing.T) {
	held, missed := result.Verdict{Held: true}, result.Verdict{}
	for _, c := range []struct {
		verdicts []result.Verdict
		want     bool
	}{
		{nil, false},
		{[]result.Verdict{held}, true},
		{[]result.Verdict{held, missed}, false},
		{[]result.Verdict{missed, held}, false},
	} {
		if got := Held(c.verdicts); got != c.want {
			t.Errorf("%v: %v", c.verdicts, got)
		}
	}
}

func TestParseSeveral(t *testing.T) {
	o, err := Parse("stall_ratio < 0.1%, start_p95<2s,goodput>=1.5G")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := o.String(), "stall_ratio<0.1%,start_p95<2s,goodput>=1.5G"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "is empty",
		"stalls<1,":                         "is empty",
		"stalls":                            "has no <",
		"stalls=1":                          "has no <",
		"<1":                                `no metric is called ""`,
		"stall<1":                           `no metric is called "stall": there are stall_ratio`,
		"start<2s":                          "no metric is called",
		"start_p<2s":                        "write start_p95",
		"start_p0<2s":                       "write start_p95",
		"start_p101<2s":                     "write start_p95",
		"start_pNaN<2s":                     "write start_p95",
		"start_p-5<2s":                      "write start_p95",
		"start_p95<2":                       "in ms or s, like 2s",
		"start_p95<2m":                      "in ms or s, like 2s",
		"start_p95<s":                       "in ms or s, like 2s",
		"start_p95<":                        "in ms or s, like 2s",
		"start_p95<-1s":                     "in ms or s, like 2s",
		"start_p95<1e9s":                    "in ms or s, like 2s",
		"start_p95<Infs":                    "in ms or s, like 2s",
		"start_p95<1..2s":                   "in ms or s, like 2s",
		"start_p95<0x1s":                    "in ms or s, like 2s",
		"start_p95<<2s":                     "in ms or s, like 2s",
		"stall_ratio<0.1k":                  "in %, like 0.1%",
		"goodput>8Mbit/s":                   "in bit/s, like 800M",
		"stalls<5%":                         "a plain number",
		"stalls<1 2":                        "a plain number",
		strings.Repeat("x", 2000):           "at most 1024",
		strings.Repeat("s,", 33):            "has no <",
		"errors<" + strings.Repeat("9", 30): "a plain number",
		strings.TrimSuffix(strings.Repeat("stalls<1,", 33), ","): "33 objectives: at most 32",
	} {
		o, err := Parse(text)
		if err == nil || o != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v and error %v, want one with %q", text, o, err, want)
		}
	}
}

func TestMeasuredOfForeignObjective(t *testing.T) {
	if got := Measured(result.Verdict{Objective: "beauty>9", Value: 3}); got != "3" {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"stall_ratio<0.1%,start_p95<2s", "goodput>=1.5G", "ttfb_p99.9 <= 300ms", "errors<1", "<>", "start_p95<.s", "a\x00<1"} {
		f.Add(text)
	}
	filled, empty := run(), &result.Result{}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(o.String())
		if err != nil || again.String() != o.String() {
			t.Fatalf("%q was read as %q, which reads as %q (%v)", text, o, again, err)
		}
		a, b := o.Evaluate(filled), again.Evaluate(filled)
		for i := range a {
			if a[i] != b[i] {
				t.Fatalf("%q: %+v, read again %+v", text, a[i], b[i])
			}
			Measured(a[i])
		}
		if Held(o.Evaluate(empty)) {
			t.Fatalf("%q holds for a run of nothing", text)
		}
	})
}
