package report

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// golden compares with a file in testdata. BLINDRELAY_GOLDEN=write replaces it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("BLINDRELAY_GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s should now be\n%s", path, got)
	}
}

func text(t *testing.T, r *result.Result) string {
	t.Helper()
	var b strings.Builder
	if err := Text(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func rendered(t *testing.T, r *result.Result) string {
	t.Helper()
	var b strings.Builder
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	r := made(t, 1, 2*time.Minute)
	r.RelayAt = "10.0.0.7:9090"
	got := text(t, r)
	golden(t, "run.txt", got)
	for line := range strings.Lines(got) {
		if len([]rune(line)) > 100 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
}

func TestTextOfARunThatProvesNothing(t *testing.T) {
	r := made(t, 1, 10*time.Second)
	r.Relay, r.RelayVersion, r.Bottleneck, r.Viewers.Corrupt = nil, "", "blindload used all cores", 2
	r.Viewers.Arrived = 0
	got := text(t, r)
	for _, want := range []string{"This run proves nothing: blindload used all cores", "Viewers found 2 answers with wrong bytes."} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "Relay") || strings.Contains(got, "relay") {
		t.Errorf("a relay that was not looked at:\n%s", got)
	}
}

func TestTextCannotCommandTheTerminal(t *testing.T) {
	r := made(t, 1, 10*time.Second)
	r.Title, r.Bottleneck = "a\x1b[2Jb", "c\u009bd"
	r.Errors["e\rf"] = 1
	all := text(t, r) + Compare([]*result.Result{r}, []*result.Result{r}).String()
	if strings.ContainsAny(all, "\x1b\r\u009b") {
		t.Errorf("control characters are in %q", all)
	}
}

func TestEmptyResults(t *testing.T) {
	for name, r := range map[string]*result.Result{"zero": {}, "recorder": result.NewRecorder().Result()} {
		if text(t, r) == "" || rendered(t, r) == "" {
			t.Errorf("%s: nothing is shown", name)
		}
		if strings.Contains(text(t, r)+rendered(t, r), "NaN") {
			t.Errorf("%s: NaN is shown", name)
		}
		if err := CSV(io.Discard, r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCSV(t *testing.T) {
	a, b := made(t, 1, time.Minute), made(t, 2, time.Minute)
	b.Relay, b.SLO, b.Title = nil, nil, `with "quotes", commas`
	var buf bytes.Buffer
	if err := CSV(&buf, a, b); err != nil {
		t.Fatal(err)
	}
	golden(t, "runs.csv", buf.String())
	rows, err := csv.NewReader(&buf).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || rows[2][1] != b.Title {
		t.Fatalf("rows are %v", rows)
	}
	cell := func(row int, column string) string {
		for i, name := range rows[0] {
			if name == column {
				return rows[row][i]
			}
		}
		t.Fatalf("no column %s", column)
		return ""
	}
	if cell(1, "slo_held") != "false" || cell(2, "slo_held") != "" || cell(1, "relay_cores") == "" || cell(2, "relay_cores") != "" || cell(1, "took_s") != "60" {
		t.Errorf("rows are %v", rows)
	}
}

func TestFiguresAreAllDifferentAndMeasured(t *testing.T) {
	r := made(t, 1, time.Minute)
	columns := make(map[string]bool)
	for _, f := range allFigures() {
		if columns[f.column] || f.label == "" {
			t.Errorf("figure %q (%q) is twice or has no label", f.column, f.label)
		}
		columns[f.column] = true
		if _, ok := f.measure(r); !ok {
			t.Errorf("a full run has no %s", f.column)
		}
	}
}

func TestHTMLNeedsNothingElse(t *testing.T) {
	got := rendered(t, made(t, 1, time.Minute))
	for _, never := range []string{"http:", "https:", "<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "javascript:"} {
		if strings.Contains(got, never) {
			t.Errorf("the page has %q", never)
		}
	}
	for _, want := range []string{
		`content="default-src 'none'; style-src 'unsafe-inline'"`, `<html lang="en">`, `name="viewport"`,
		"@media print", "prefers-color-scheme: dark", "max-width: 760px",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestHTMLShowsTheRun(t *testing.T) {
	got := rendered(t, made(t, 1, 2*time.Minute))
	for _, want := range []string{
		"<h1>100 viewers, vod, 8 Mbit/s adaptive, lte</h1>",
		"2 cores, AMD EPYC 7R13, 8 GiB, Linux 6.1.0, go1.26.8, blindload v0.3.0-12-g4f2c1aa",
		"relay v0.3.0",
		`<li class="missed"><b>&#10007; not held</b> <code>stall_ratio&lt;0.1%</code> <span>0.367%</span></li>`,
		`<li class="held"><b>&#10003; held</b> <code>start_p95&lt;2s</code> <span>1.42 s</span></li>`,
		`<dt>start-up, p95</dt><dd>1.42 s</dd>`,
		`<div class="bad"><dt>errors</dt><dd>3</dd></div>`,
		`<th scope="row">stall ratio</th><td>0.367%</td>`,
		`<th scope="row">timeout</th>`,
		`<th scope="row">4.50 Mbit/s</th>`,
		"&#34;link&#34;: &#34;lte&#34;",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

func TestHTMLAlarms(t *testing.T) {
	r := made(t, 1, 10*time.Second)
	r.Bottleneck, r.Viewers.Corrupt, r.Relay = "no core was free", 1, nil
	got := rendered(t, r)
	for _, want := range []string{"This run proves nothing: no core was free", "1 answers with wrong bytes", "CPU of blindload"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(got, "jitter buffers") {
		t.Error("plots of a relay that was not looked at")
	}
}

func TestHTMLEscapes(t *testing.T) {
	const evil = `</style></title></pre><script>alert("x")</script>`
	r := made(t, 1, 10*time.Second)
	r.Title, r.Bottleneck, r.RelayAt, r.Machine.CPU = evil, evil, evil, evil
	r.Errors[evil] = 1
	r.Bitrates[evil] = 1
	r.Scenario = map[string]string{evil: evil}
	r.SLO = []result.Verdict{{Objective: evil}}
	if got := rendered(t, r); strings.Contains(got, "<script") || strings.Count(got, "</style>") != 1 {
		t.Error("text of the result became part of the page")
	}
}

var drawings = regexp.MustCompile(`(?s)<svg viewBox="0 0 480.*?</svg>`)

func TestPlots(t *testing.T) {
	all := drawings.FindAllString(rendered(t, made(t, 1, 2*time.Minute)), -1)
	if len(all) != 8 {
		t.Fatalf("%d plots, want 8", len(all))
	}
	ids := make(map[string]bool)
	for _, svg := range all {
		d := xml.NewDecoder(strings.NewReader(svg))
		var texts []string
		var inside string
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
			switch e := token.(type) {
			case xml.StartElement:
				inside = e.Name.Local
				for _, a := range e.Attr {
					if a.Name.Local == "id" {
						if ids[a.Value] {
							t.Errorf("id %s is twice", a.Value)
						}
						ids[a.Value] = true
					}
				}
			case xml.CharData:
				texts = append(texts, inside+": "+string(e))
			}
		}
		joined := strings.Join(texts, "\n")
		for _, want := range []string{"title: ", "desc: ", "text: seconds since the start", "text: 0", "text: 120"} {
			if !strings.Contains(joined, want) {
				t.Errorf("a plot has no %q: %s", want, joined)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("a plot has no number where it should: %s", svg)
		}
	}
	if want := "At most 100 viewers at once; at most 11 of them stalled."; !strings.Contains(all[1], want) {
		t.Errorf("viewers are described without %q", want)
	}
}

func TestPlotsOfOneSample(t *testing.T) {
	r := made(t, 1, time.Second)
	if n := len(drawings.FindAllString(rendered(t, r), -1)); n != 8 {
		t.Errorf("%d plots", n)
	}
}

func TestADayStaysSmall(t *testing.T) {
	r := made(t, 1, time.Minute)
	minute := r.Samples
	r.Samples = nil
	for i := range 24 * 60 {
		for _, s := range minute {
			s.At += time.Duration(i) * time.Minute
			r.Samples = append(r.Samples, s)
		}
	}
	r.Took = 24 * time.Hour
	got := rendered(t, r)
	if len(got) > 200_000 {
		t.Errorf("a page of %d bytes", len(got))
	}
	for _, c := range charts(r) {
		if len(c.at) > maxPoints {
			t.Errorf("%s: %d points", c.Title, len(c.at))
		}
	}
	for _, want := range []string{"hours since the start, a point for 360 s", "at most 11 of them stalled"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page of a day has no %q", want)
		}
	}
}

func TestBucketsKeepExtremesAndMeans(t *testing.T) {
	var samples []result.Sample
	for i := range 1000 {
		samples = append(samples, result.Sample{At: time.Duration(i) * time.Second, Playing: i % 10})
	}
	all := buckets(samples)
	if len(all) > maxPoints {
		t.Fatalf("%d buckets", len(all))
	}
	playing := func(s result.Sample) float64 { return float64(s.Playing) }
	count := 0
	for _, b := range all {
		count += len(b.samples)
	}
	highs := extreme(all, func(a, b float64) float64 { return max(a, b) }, playing)
	if count != 1000 || highs[1] != 9 || average(all[:1], playing)[0] != 2 || all[0].at != 2 {
		t.Errorf("%d samples, second bucket up to %v, first %v at %v", count, highs[1], average(all[:1], playing)[0], all[0].at)
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct{ top, last, step float64 }{
		{0, 1, 1}, {1, 1, 0.25}, {4, 4, 1}, {100, 100, 25}, {919, 1000, 250}, {0.827, 1, 0.25}, {30, 30, 10}, {1.1e9, 1.5e9, 5e8}, {0.0003, 0.0003, 0.0001},
		{-1, 1, 1}, {math.NaN(), 1, 1}, {math.Inf(1), 1, 1}, {5e-324, 1, 1}, {math.MaxFloat64, 1, 1},
	} {
		got := ticks(c.top, 4)
		if last := got[len(got)-1]; last < c.last*0.999 || last > c.last*1.001 || got[1] < c.step*0.999 || got[1] > c.step*1.001 || len(got) > 7 {
			t.Errorf("up to %v: %v, want steps of %v to %v", c.top, got, c.step, c.last)
		}
	}
	for _, end := range []time.Duration{0, time.Second, 59 * time.Second, time.Minute, 3 * time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour, 1000 * time.Hour, math.MaxInt64} {
		at, _, _ := timeTicks(end)
		if len(at) == 0 || len(at) > 8 || at[len(at)-1] > end {
			t.Errorf("%v: %v", end, at)
		}
	}
}

// FuzzPlots gives samples that no run has: somebody's file may hold them.
func FuzzPlots(f *testing.F) {
	f.Add(int64(time.Minute), int64(time.Second), int64(2*time.Second), 8e6, 20.5, 3)
	f.Add(int64(0), int64(0), int64(0), 0.0, 0.0, 0)
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64), int64(math.MinInt64), math.MaxFloat64, 5e-324, math.MaxInt)
	f.Add(int64(-1), int64(-1), int64(-2), -1.0, -math.MaxFloat64, math.MinInt)
	f.Fuzz(func(t *testing.T, took, first, second int64, goodput, buffer float64, playing int) {
		if math.IsNaN(goodput) || math.IsNaN(buffer) || math.IsInf(goodput, 0) || math.IsInf(buffer, 0) {
			return // JSON has no such numbers
		}
		r := &result.Result{Took: time.Duration(took), Relay: &result.Usage{}}
		for _, at := range []int64{first, second} {
			r.Samples = append(r.Samples, result.Sample{
				At: time.Duration(at), Playing: playing, Stalled: playing, Goodput: goodput, Stalls: int64(playing),
				Buffer: [3]float64{buffer, -buffer, buffer}, Load: result.Usage{CPU: time.Duration(took), Memory: second},
			})
		}
		var b strings.Builder
		if err := HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		if b.Len() > 100_000 {
			t.Errorf("a page of %d bytes from two samples", b.Len())
		}
		for _, svg := range drawings.FindAllString(b.String(), -1) {
			if strings.Contains(svg, "NaN") {
				t.Errorf("no number in %s", svg)
			}
		}
		if _, err := Merge([]*result.Result{r, r}, false); err != nil {
			t.Fatal(err)
		}
	})
}
