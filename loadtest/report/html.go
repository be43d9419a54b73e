package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

//go:embed page.tmpl
var pageText string

//go:embed page.css
var pageStyle string

// HTML writes a run as one file that needs nothing else: style and drawings are
// in it, there is no script, and its policy forbids the browser to fetch
// anything. It has light, dark and print forms.
func HTML(w io.Writer, r *result.Result) error {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	p := page{
		Title: r.Title, Style: template.CSS(pageStyle), Alarms: alarms(r), Objectives: objectives(r),
		Tiles: tiles(r), Charts: charts(r), Times: timeRows(r), Percentiles: percentiles(),
		Shares: shares(r), Facts: facts(r), Scenario: scenario(r),
	}
	for _, s := range tables(r) {
		p.Tables = append(p.Tables, newTable(s, r))
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("write HTML report: %w", err)
	}
	return nil
}

// page is what the template shows.
type page struct {
	Title       string
	Facts       []string
	Style       template.CSS
	Alarms      []string // what makes the run worthless or bad, in sentences
	Objectives  []objective
	Tiles       []tile
	Charts      []*chart
	Times       []timeRow
	Percentiles []int
	Tables      []table
	Shares      []share
	Scenario    string
}

type objective struct {
	Text, Measured string
	Held           bool
}

// tile is one of the few figures that come first.
type tile struct {
	Label, Value string
	Bad          bool
}

type table struct {
	Title string
	Rows  []tile
}

// share is a table of parts of a whole.
type share struct {
	Title string
	Rows  []shareRow
}

// shareRow has its share as a bar of Width, in percent.
type shareRow struct {
	Name, Percent, Count, Width string
}

func newTable(s section, r *result.Result) table {
	t := table{Title: s.title}
	for _, f := range s.figures {
		t.Rows = append(t.Rows, tile{Label: f.label, Value: f.text(r)})
	}
	return t
}

func alarms(r *result.Result) []string {
	var all []string
	if r.Bottleneck != "" {
		all = append(all, "This run proves nothing: "+r.Bottleneck)
	}
	if n := r.Viewers.Corrupt; n > 0 {
		all = append(all, fmt.Sprintf("Viewers found %d answers with wrong bytes.", n))
	}
	return all
}

func objectives(r *result.Result) []objective {
	var all []objective
	for _, v := range r.SLO {
		all = append(all, objective{v.Objective, slo.Measured(v), v.Held})
	}
	return all
}

func tiles(r *result.Result) []tile {
	wanted := []struct {
		column, label string
		alarming      bool // above zero
	}{
		{"start_p95_s", "start-up, p95", false},
		{"stall_ratio", "stall ratio", false},
		{"longest_stall_s", "longest stall", false},
		{"goodput_bps", "goodput", false},
		{"relay_cpu_s_per_gib", "relay CPU a GiB", false},
		{"errors", "errors", true},
	}
	var all []tile
	for _, w := range wanted {
		for _, f := range allFigures() {
			if f.column != w.column {
				continue
			}
			if v, ok := f.measure(r); ok {
				all = append(all, tile{w.label, f.write(v), w.alarming && v > 0})
			}
		}
	}
	return all
}

func shares(r *result.Result) []share {
	var all []share
	for _, s := range []struct {
		title string
		parts []part
	}{{"Bitrates chosen, by segments", bitrateParts(r)}, {"Errors by code", errorParts(r)}} {
		if len(s.parts) == 0 {
			continue
		}
		one := share{Title: s.title}
		for _, p := range s.parts {
			one.Rows = append(one.Rows, shareRow{p.Name, units.Percent(p.Share), units.Number(float64(p.Count)), fmt.Sprintf("%.1f", 100*p.Share)})
		}
		all = append(all, one)
	}
	return all
}

// scenario is the scenario as indented JSON; empty if there is none.
func scenario(r *result.Result) string {
	if r.Scenario == nil {
		return ""
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the template escapes
	e.SetIndent("", "  ")
	if err := e.Encode(r.Scenario); err != nil {
		return fmt.Sprintf("the scenario cannot be shown: %v", err)
	}
	return strings.TrimSpace(b.String())
}
