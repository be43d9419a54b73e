package report

import (
	"fmt"
	"html"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/units"
)

// The drawing's size in its own units, and the margins for the axes' labels.
const (
	chartWidth   = 480
	chartHeight  = 216
	marginLeft   = 46
	marginRight  = 10
	marginTop    = 10
	marginBottom = 42
)

// chart is one plot over time. Colours and text sizes come from the style sheet
// of the page, so that one drawing serves light, dark, print and phones.
type chart struct {
	Title string
	Unit  string
	Note  string // for people who do not see the plot, and below it for others
	shape shape
	lines []series
	at    []float64 // seconds
	each  int       // samples behind a point
	end   time.Duration
	id    string
}

// shape is how a chart's series are drawn.
type shape int

const (
	shapeLines shape = iota // the first one filled
	shapeBand               // lowest edge, middle, highest edge
	shapeStack              // each on top of those before
	shapeBars
)

// key is one entry of a chart's legend.
type key struct{ Name, Class string }

// Legend names what is drawn; empty for one series, which the title names.
func (c *chart) Legend() []key {
	if c.shape == shapeBand {
		return []key{{"median viewer", "line " + c.lines[1].class}, {"5% to 95% of viewers", "fill " + c.lines[0].class}}
	}
	if len(c.lines) < 2 {
		return nil
	}
	kind := "line "
	if c.shape == shapeStack {
		kind = "fill "
	}
	var keys []key
	for _, s := range c.lines {
		keys = append(keys, key{s.name, kind + s.class})
	}
	return keys
}

// SVG draws the chart.
func (c *chart) SVG() template.HTML {
	drawn := c.lines
	if c.shape == shapeStack {
		drawn = stacked(c.lines)
	}
	var top float64
	for _, s := range drawn {
		top = max(top, slices.Max(s.values))
	}
	if c.shape == shapeStack || c.shape == shapeBars {
		top = max(top, 4) // no half viewers on the axis
	}
	grid := ticks(top, 4)
	p := &plot{end: max(c.end.Seconds(), c.at[len(c.at)-1], 1), top: grid[len(grid)-1]}

	fmt.Fprintf(p, `<svg viewBox="0 0 %d %d" role="img" aria-labelledby="%s-t %s-d">`, chartWidth, chartHeight, c.id, c.id)
	fmt.Fprintf(p, `<title id="%s-t">%s, %s</title><desc id="%s-d">%s</desc>`, c.id, html.EscapeString(c.Title), html.EscapeString(c.Unit), c.id, html.EscapeString(c.Note))
	p.axes(grid, c.end, c.each)
	switch c.shape {
	case shapeBand:
		p.area(c.lines[0].class, c.at, c.lines[0].values, c.lines[2].values)
		p.line(c.lines[1].class, c.at, c.lines[1].values)
	case shapeStack:
		under := make([]float64, len(c.at))
		for _, s := range drawn {
			p.area(s.class, c.at, under, s.values)
			under = s.values
		}
	case shapeBars:
		p.bars(c.lines[0].class, c.at, c.lines[0].values)
	default:
		p.area(c.lines[0].class+" under", c.at, make([]float64, len(c.at)), c.lines[0].values)
		for _, s := range slices.Backward(c.lines) {
			p.line(s.class, c.at, s.values)
		}
	}
	p.baseline()
	p.WriteString("</svg>")
	// Every text in it was escaped where it was written.
	return template.HTML(p.String())
}

// stacked adds to each series those before it.
func stacked(lines []series) []series {
	var all []series
	for i, s := range lines {
		s.values = slices.Clone(s.values)
		if i > 0 {
			for j, v := range all[i-1].values {
				s.values[j] += v
			}
		}
		all = append(all, s)
	}
	return all
}

// plot is a drawing in the making.
type plot struct {
	strings.Builder
	end float64 // seconds at the right edge
	top float64 // value at the upper edge
}

func (p *plot) x(seconds float64) float64 {
	return marginLeft + seconds/p.end*(chartWidth-marginLeft-marginRight)
}

func (p *plot) y(v float64) float64 {
	return chartHeight - marginBottom - v/p.top*(chartHeight-marginTop-marginBottom)
}

func (p *plot) axes(grid []float64, end time.Duration, each int) {
	for _, v := range grid {
		y := p.y(v)
		fmt.Fprintf(p, `<path class="grid" d="M%d %.1fH%d"/>`, marginLeft, y, chartWidth-marginRight)
		fmt.Fprintf(p, `<text class="y" x="%d" y="%.1f">%s</text>`, marginLeft-6, y+4, tickText(v))
	}
	times, unit, name := timeTicks(end)
	for _, t := range times {
		x := p.x(t.Seconds())
		fmt.Fprintf(p, `<path class="tick" d="M%.1f %dv4"/>`, x, chartHeight-marginBottom)
		fmt.Fprintf(p, `<text class="x" x="%.1f" y="%d">%s</text>`, x, chartHeight-marginBottom+17, tickText(float64(t)/float64(unit)))
	}
	name += " since the start"
	if each > 1 {
		name += fmt.Sprintf(", a point for %d s", each)
	}
	fmt.Fprintf(p, `<text class="x" x="%d" y="%d">%s</text>`, (marginLeft+chartWidth-marginRight)/2, chartHeight-7, name)
}

// tickText writes a round number without zeros at its end.
func tickText(v float64) string {
	if v >= 1000 {
		return units.Number(v)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func (p *plot) baseline() {
	fmt.Fprintf(p, `<path class="base" d="M%d %dH%d"/>`, marginLeft, chartHeight-marginBottom, chartWidth-marginRight)
}

func (p *plot) line(class string, at, values []float64) {
	fmt.Fprintf(p, `<path class="line %s" d="`, class)
	p.points('M', at, values)
	p.WriteString(`"/>`)
}

// area fills from one line up to another.
func (p *plot) area(class string, at, from, to []float64) {
	fmt.Fprintf(p, `<path class="fill %s" d="`, class)
	p.points('M', at, to)
	back, low := slices.Clone(at), slices.Clone(from)
	slices.Reverse(back)
	slices.Reverse(low)
	p.points('L', back, low)
	p.WriteString(`Z"/>`)
}

func (p *plot) points(first byte, at, values []float64) {
	command := first
	for i, v := range values {
		fmt.Fprintf(p, "%c%.1f %.1f", command, p.x(at[i]), p.y(v))
		command = 'L'
	}
}

func (p *plot) bars(class string, at, values []float64) {
	width := max(1, 0.8*float64(chartWidth-marginLeft-marginRight)/float64(max(len(at), 1)))
	fmt.Fprintf(p, `<path class="fill %s" d="`, class)
	for i, v := range values {
		if v > 0 {
			x := min(max(p.x(at[i])-width/2, marginLeft), chartWidth-marginRight-width)
			fmt.Fprintf(p, "M%.1f %dV%.1fh%.1fV%dZ", x, chartHeight-marginBottom, p.y(v), width, chartHeight-marginBottom)
		}
	}
	p.WriteString(`"/>`)
}
