package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/slo"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// Text writes the table of a run for people.
func Text(w io.Writer, r *result.Result) error {
	var b bytes.Buffer
	fmt.Fprintln(&b, r.Title)
	for _, line := range facts(r) {
		fmt.Fprintln(&b, line)
	}
	for _, alarm := range alarms(r) {
		fmt.Fprintf(&b, "\n%s\n", alarm)
	}
	writeObjectives(&b, r)
	for i, s := range tables(r) {
		var g grid
		for _, f := range s.figures {
			g.add(f.label, f.text(r))
		}
		g.write(&b, s.title)
		if i == 0 {
			writeTimes(&b, r)
			writeParts(&b, "Bitrates chosen, by segments", bitrateParts(r))
			writeParts(&b, "Errors by code", errorParts(r))
		}
	}
	_, err := w.Write(printable(b.Bytes()))
	return err
}

// printable leaves out what a terminal would take for a command: titles and
// codes may come from somebody's file.
func printable(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r != '\n' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
}

func writeObjectives(b *bytes.Buffer, r *result.Result) {
	var g grid
	for _, v := range r.SLO {
		held := "held"
		if !v.Held {
			held = "NOT HELD"
		}
		g.add(v.Objective, slo.Measured(v), held)
	}
	g.write(b, "Objectives")
}

func writeTimes(b *bytes.Buffer, r *result.Result) {
	head := []string{""}
	for _, p := range percentiles() {
		head = append(head, fmt.Sprintf("p%d", p))
	}
	var g grid
	for i, row := range timeRows(r) {
		if i == 0 {
			g.add(append(head, "max", "values")...)
		}
		g.add(append(append([]string{row.Label}, row.Cells...), row.Values)...)
	}
	g.write(b, titleTimes)
}

func writeParts(b *bytes.Buffer, title string, all []part) {
	var g grid
	for _, p := range all {
		g.add(p.Name, units.Percent(p.Share), units.Number(float64(p.Count)))
	}
	g.write(b, title)
}

// grid is a table of text. The first column is set to the left, the others to
// the right. A line of one cell is a heading.
type grid struct{ lines [][]string }

func (g *grid) add(cells ...string) { g.lines = append(g.lines, cells) }

// write prints the table under its title, or nothing if it is empty.
func (g *grid) write(b *bytes.Buffer, title string) {
	if len(g.lines) == 0 {
		return
	}
	// Labels of all small tables share a width, so that figures line up.
	widths := []int{24}
	for _, cells := range g.lines {
		if len(cells) == 1 {
			continue
		}
		for i, cell := range cells {
			if i == len(widths) {
				widths = append(widths, 9)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	fmt.Fprintf(b, "\n%s\n", title)
	for _, cells := range g.lines {
		if len(cells) == 1 {
			fmt.Fprintln(b, cells[0])
			continue
		}
		line := fmt.Sprintf("  %-*s", widths[0], cells[0])
		for i, cell := range cells[1:] {
			line += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
}

// timeRow is one line of the table of times.
type timeRow struct {
	Label  string
	Cells  []string // percentiles and the longest
	Values string   // how many there are
}

func timeRows(r *result.Result) []timeRow {
	var rows []timeRow
	for _, t := range times() {
		n := r.Hists[t.hist].Count()
		if n == 0 {
			continue
		}
		row := timeRow{Label: t.label, Values: units.Number(float64(n))}
		for _, f := range t.figures() {
			row.Cells = append(row.Cells, f.text(r))
		}
		rows = append(rows, row)
	}
	return rows
}

// facts say when and where a run was made, one line each.
func facts(r *result.Result) []string {
	when := "took " + units.Duration(r.Took.Round(time.Millisecond))
	if !r.Started.IsZero() {
		when = r.Started.UTC().Format("2006-01-02 15:04:05 UTC") + ", " + when
	}
	lines := append([]string{when}, machines(r)...)
	relay := r.RelayVersion
	if r.RelayAt != "" {
		relay = strings.TrimSpace(relay + " at " + r.RelayAt)
	}
	if relay != "" {
		lines = append(lines, "relay "+relay)
	}
	return lines
}

// machines describes where a run was made, one line a machine.
func machines(r *result.Result) []string {
	all := r.Merged
	if len(all) == 0 {
		all = []result.Machine{r.Machine}
	}
	var lines []string
	for _, m := range all {
		var facts []string
		if m.Cores > 0 {
			facts = append(facts, fmt.Sprintf("%d cores", m.Cores))
		}
		if m.CPU != "" {
			facts = append(facts, m.CPU)
		}
		if m.Memory > 0 {
			facts = append(facts, units.Bytes(float64(m.Memory)))
		}
		for _, fact := range []string{m.System, m.Go} {
			if fact != "" {
				facts = append(facts, fact)
			}
		}
		if m.Revision != "" {
			facts = append(facts, "blindload "+m.Revision)
		}
		if len(facts) > 0 {
			lines = append(lines, strings.Join(facts, ", "))
		}
	}
	return lines
}
