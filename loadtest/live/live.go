// Package live shows a load test while it runs: a few lines that are redrawn
// each second on a terminal, or a line every ten seconds elsewhere.
//
//	live.Show(ctx, os.Stderr, false, func() live.State { return state }) // until ctx ends
//
// Nothing else may write to the terminal meanwhile. When Show returns, the
// last lines stay and the cursor is below them and visible.
package live

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/loadtest/units"
)

// How often the view is brought up to date.
const (
	redrawEvery = time.Second
	plainEvery  = 10 * time.Second
	plainWidth  = 80 // where the terminal does not say
	minWidth    = 20
)

// What is sent to a terminal (ECMA-48).
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearBelow = "\x1b[J" // from the cursor to the end of the screen
)

// State is what there is to show.
type State struct {
	Title    string
	Left     time.Duration  // of the run; negative if it has no end
	Now      result.Sample  // the last second
	Viewers  result.Viewers // so far
	Errors   int64          // so far
	StartP95 time.Duration  // so far; 0 if nobody started
	Relay    bool           // whether Now.Relay was looked at
}

// Show draws what snapshot returns until ctx ends, then once more. It calls
// snapshot at most once a second, from the caller's goroutine. It writes plain
// lines if out is no terminal, and with plain set also if it is, for terminals
// that take no commands (TERM=dumb). The error is that of writing to out, at
// which it stops.
func Show(ctx context.Context, out *os.File, plain bool, snapshot func() State) error {
	fd := int(out.Fd())
	if plain || !term.IsTerminal(fd) {
		return writeLines(ctx, out, snapshot)
	}
	return redraw(ctx, out, snapshot, func() int {
		width, _, err := term.GetSize(fd)
		if err != nil {
			return plainWidth
		}
		return width
	})
}

// writeLines writes a line now and then.
func writeLines(ctx context.Context, out io.Writer, snapshot func() State) error {
	tick := time.NewTicker(plainEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			_, err := fmt.Fprintln(out, line(snapshot()))
			return err
		}
		if _, err := fmt.Fprintln(out, line(snapshot())); err != nil {
			return err
		}
	}
}

// line is a state in one line.
func line(s State) string {
	parts := []string{
		fmt.Sprintf("%d playing, %d starting, %d stalled", s.Now.Playing, s.Now.Starting, s.Now.Stalled),
		units.Rate(s.Now.Goodput), "start p95 " + startText(s),
		fmt.Sprintf("%d stalls", s.Viewers.Stalls), fmt.Sprintf("%d errors", s.Errors),
	}
	if s.Relay {
		parts = append(parts, "relay "+usageText(s.Now.Relay))
	}
	return s.Now.At.Round(time.Second).String() + ": " + strings.Join(append(parts, leftText(s)), ", ")
}

// redraw repeats a view on a terminal whose width may change.
func redraw(ctx context.Context, out io.Writer, snapshot func() State, width func() int) (err error) {
	if _, err := io.WriteString(out, hideCursor); err != nil {
		return err
	}
	defer func() {
		if _, e := io.WriteString(out, showCursor); err == nil {
			err = e
		}
	}()
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	var v view
	for {
		if _, err := io.WriteString(out, v.frame(snapshot(), max(width(), minWidth))); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_, err := io.WriteString(out, v.frame(snapshot(), max(width(), minWidth)))
			return err
		}
	}
}

// view is what is on the screen and what its sparkline remembers.
type view struct {
	lines   []string // drawn before
	goodput history
}

// frame returns what replaces the lines drawn before by those of s.
func (v *view) frame(s State, width int) string {
	v.goodput.add(s.Now.At, s.Now.Goodput)
	// A terminal that became narrower has wrapped the old lines.
	rows := 0
	for _, l := range v.lines {
		rows += max(1, (utf8.RuneCountInString(l)+width-1)/width)
	}
	var b strings.Builder
	if rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", rows)
	}
	b.WriteString("\r" + clearBelow)
	v.lines = v.draw(s, width)
	for _, l := range v.lines {
		b.WriteString(l + "\r\n")
	}
	return b.String()
}

// draw returns the lines of s, each shorter than the width, since some
// terminals wrap a full line.
func (v *view) draw(s State, width int) []string {
	elapsed := s.Now.At.Round(time.Second).String()
	lines := []string{
		s.Title,
		fmt.Sprintf("time      %s, %s", elapsed, leftText(s)),
		fmt.Sprintf("viewers   %d playing, %d starting, %d stalled", s.Now.Playing, s.Now.Starting, s.Now.Stalled),
		"goodput   " + units.Rate(s.Now.Goodput),
		fmt.Sprintf("films     start p95 %s, %d stalls, %d errors", startText(s), s.Viewers.Stalls, s.Errors),
	}
	const goodput = 3
	label := fmt.Sprintf("%-24s ", lines[goodput])
	lines[goodput] = label + v.goodput.spark(width-1-utf8.RuneCountInString(label))
	if s.Relay {
		lines = append(lines, "relay     "+usageText(s.Now.Relay))
	}
	lines = append(lines, "blindload "+usageText(s.Now.Load))
	for i, l := range lines {
		lines[i] = cut(l, width-1)
	}
	return lines
}

func usageText(u result.Usage) string {
	return units.Number(u.CPU.Seconds()) + " cores, " + units.Bytes(float64(u.Memory))
}

func startText(s State) string {
	if s.StartP95 == 0 {
		return "unknown"
	}
	return units.Duration(s.StartP95)
}

func leftText(s State) string {
	if s.Left < 0 {
		return "until interrupted"
	}
	return s.Left.Round(time.Second).String() + " left"
}

// cut shortens a line to a width and leaves out what a terminal would take for
// a command: a title is somebody's text.
func cut(text string, width int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if unicode.IsControl(r) {
			continue
		}
		if n == width {
			break
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
