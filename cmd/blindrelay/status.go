package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// statusPage serves the numbers of /metrics to a person: one page that loads
// nothing, runs nothing, and asks for itself again every 10 s.
func statusPage(metrics prometheus.Gatherer, ready func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		families, err := metrics.Gather()
		if err != nil {
			http.Error(w, "the metrics could not be gathered: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		var b strings.Builder
		writeStatus(&b, families, ready(), time.Now())
		_, _ = w.Write([]byte(b.String())) // the reader may have gone
	}
}

const statusHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>blindrelay</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="10">
<style>
:root { color-scheme: light dark; --line: #8885; --quiet: #595959 }
@media (prefers-color-scheme: dark) { :root { --quiet: #b0b0b0 } }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 }
p, dt, .help { color: var(--quiet) }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem; margin: 1.2rem 0; padding: 0 }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: .5rem .75rem }
dt { font-size: .85rem } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid var(--line); padding: .35rem .5rem; vertical-align: top }
td:last-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
code { font-size: .9rem; overflow-wrap: anywhere } .help { font-size: .85rem }
</style></head><body>
`

func writeStatus(b *strings.Builder, families []*dto.MetricFamily, ready bool, now time.Time) {
	sum := func(name, label string) (total float64) {
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && strings.Contains(labels(m), label) {
					total += value(m)
				}
			}
		}
		return total
	}
	state := "takes endpoints"
	switch {
	case sum("blindrelay_draining", "") > 0:
		state = "is being emptied: its endpoints are asked to move, nobody new is taken"
	case !ready:
		state = "does not listen"
	}
	since := time.Unix(0, int64(sum("process_start_time_seconds", "")*1e9))
	version, _ := build()
	b.WriteString(statusHead)
	fmt.Fprintf(b, "<h1>This relay %s.</h1>\n<p>blindrelay %s, for %v. Counts are since its start and tell of nobody by themselves. The same for Prometheus: <a href=\"/metrics\">/metrics</a>.</p>\n<dl>\n",
		state, html.EscapeString(version), now.Sub(since).Round(time.Second))
	memory := sum("blindrelay_buffer_memory_bytes", "")
	for _, figure := range []struct{ what, is string }{
		{"agents", number("", sum("blindrelay_agents", ""))},
		{"devices", number("", sum("blindrelay_sessions", "role device"))},
		{"streams", number("", sum("blindrelay_streams", ""))},
		{"forwarded", number("_bytes", sum("blindrelay_forwarded_bytes_total", ""))},
		{"streams refused", number("", sum("blindrelay_streams_refused_total", ""))},
		{"memory for streams promised", fmt.Sprintf("%.0f %%", 100*sum("blindrelay_buffer_reserved_bytes", "")/max(memory, 1))},
	} {
		fmt.Fprintf(b, "<div><dt>%s</dt><dd>%s</dd></div>\n", figure.what, figure.is)
	}
	b.WriteString("</dl>\n<table>\n")
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "blindrelay_") && f.GetName() != "blindrelay_build_info" {
			writeFamily(b, f)
		}
	}
	b.WriteString("</table>\n</body></html>\n")
}

// writeFamily writes a row for each value, the largest first. Of many it leaves
// out those that are 0, and says so.
func writeFamily(b *strings.Builder, f *dto.MetricFamily) {
	rows := slices.Clone(f.GetMetric())
	slices.SortStableFunc(rows, func(x, y *dto.Metric) int { return cmp.Compare(value(y), value(x)) })
	const few = 3
	if at := slices.IndexFunc(rows, func(m *dto.Metric) bool { return value(m) == 0 }); at >= 0 && len(rows) > few {
		rows = rows[:at]
	}
	fmt.Fprintf(b, "<tr><td><code>%s</code><div class=help>%s", html.EscapeString(f.GetName()), html.EscapeString(f.GetHelp()))
	if n := len(f.GetMetric()) - len(rows); n > 0 {
		fmt.Fprintf(b, " %d values are 0.", n)
	}
	b.WriteString("</div></td><td>")
	for i, m := range rows {
		if i > 0 {
			b.WriteString("<br>")
		}
		fmt.Fprintf(b, "%s %s", html.EscapeString(labels(m)), number(f.GetName(), value(m)))
	}
	b.WriteString("</td></tr>\n")
}

func labels(m *dto.Metric) string {
	var parts []string
	for _, l := range m.GetLabel() {
		parts = append(parts, l.GetName()+" "+l.GetValue())
	}
	return strings.Join(parts, ", ")
}

// value is a counter's or a gauge's value, and how often a histogram or summary
// has observed one.
func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	case m.Summary != nil:
		return float64(m.Summary.GetSampleCount())
	}
	return m.Untyped.GetValue()
}

// number writes a value of a metric of this name for people.
func number(name string, v float64) string {
	if !strings.Contains(name, "_bytes") {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit := 0
	for math.Abs(v) >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.1f %s", v, units[unit])
}
