package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is a terminal that knows just what redraw may send.
type screen struct {
	t       *testing.T
	width   int
	rows    []string
	x, y    int
	hidden  bool
	frames  int
	highest int // row count
}

func (s *screen) Write(b []byte) (int, error) {
	for text := string(b); text != ""; {
		switch {
		case strings.HasPrefix(text, hideCursor):
			s.hidden, text = true, text[len(hideCursor):]
		case strings.HasPrefix(text, showCursor):
			s.hidden, text = false, text[len(showCursor):]
		case strings.HasPrefix(text, clearBelow):
			s.rows = s.rows[:min(s.y, len(s.rows))]
			text = text[len(clearBelow):]
			s.frames++
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexByte(text, 'A')
			up, err := strconv.Atoi(text[2:max(end, 2)])
			if err != nil || up > s.y {
				s.t.Fatalf("cursor at row %d sent %q", s.y, text[:min(len(text), 12)])
			}
			s.y -= up
			text = text[end+1:]
		case text[0] == '\r':
			s.x, text = 0, text[1:]
		case text[0] == '\n':
			s.y, text = s.y+1, text[1:]
		default:
			r, size := utf8.DecodeRuneInString(text)
			s.put(r)
			text = text[size:]
		}
	}
	return len(b), nil
}

func (s *screen) put(r rune) {
	if r < ' ' || s.x >= s.width {
		s.t.Fatalf("%q at column %d of %d", r, s.x, s.width)
	}
	for len(s.rows) <= s.y {
		s.rows = append(s.rows, "")
	}
	s.rows[s.y] += string(r)
	s.x++
	s.highest = max(s.highest, len(s.rows))
}

// narrow wraps what is on the screen, as terminals do when their window shrinks.
func (s *screen) narrow(width int) {
	var rows []string
	for _, row := range s.rows {
		text := []rune(row)
		for len(text) > width {
			rows = append(rows, string(text[:width]))
			text = text[width:]
		}
		rows = append(rows, string(text))
	}
	s.rows, s.y, s.width = rows, len(rows), width
}

func state(at time.Duration) State {
	return State{
		Title: "100 viewers, vod, 8 Mbit/s, lte", Left: time.Minute - at, StartP95: 1420 * time.Millisecond, Errors: 2, Relay: true,
		Now: result.Sample{
			At: at, Playing: 97, Starting: 2, Stalled: 1, Goodput: 8e8 * at.Seconds() / 60,
			Relay: result.Usage{CPU: 512 * time.Millisecond, Memory: 62 << 20}, Load: result.Usage{CPU: 668 * time.Millisecond, Memory: 171 << 20},
		},
		Viewers: result.Viewers{Stalls: 13},
	}
}

func TestRedraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20500*time.Millisecond)
		defer cancel()
		start := time.Now()
		s := &screen{t: t, width: 80}
		err := redraw(ctx, s, func() State {
			if !s.hidden {
				t.Error("the cursor is visible while the view is redrawn")
			}
			return state(time.Since(start))
		}, func() int { return 80 })
		if err != nil {
			t.Fatal(err)
		}
		want := `100 viewers, vod, 8 Mbit/s, lte
time      21s, 40s left
viewers   97 playing, 2 starting, 1 stalled
goodput   273 Mbit/s     ▁▁▁▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇█
films     start p95 1.42 s, 13 stalls, 2 errors
relay     0.512 cores, 62 MiB
blindload 0.668 cores, 171 MiB`
		if got := strings.Join(s.rows, "\n"); got != want {
			t.Errorf("the screen shows\n%s\nwant\n%s", got, want)
		}
		if s.hidden || s.x != 0 || s.y != 7 || s.highest != 7 {
			t.Errorf("at the end: cursor hidden %v at column %d, row %d; up to %d rows", s.hidden, s.x, s.y, s.highest)
		}
		if s.frames != 22 {
			t.Errorf("%d frames in 20.5 s, want 22", s.frames)
		}
	})
}

func TestRedrawKeepsToTheWidth(t *testing.T) {
	for _, width := range []int{minWidth, 21, 33, 80, 200} {
		s := &screen{t: t, width: width}
		var v view
		for at := range 300 {
			if _, err := s.Write([]byte(v.frame(state(time.Duration(at)*time.Second), width))); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.rows) != 7 {
			t.Errorf("%d columns: %d rows", width, len(s.rows))
		}
		for _, row := range s.rows {
			if n := utf8.RuneCountInString(row); n >= width {
				t.Errorf("%d columns: a row of %d", width, n)
			}
		}
	}
}

func TestRedrawWhenTheWindowShrinks(t *testing.T) {
	s := &screen{t: t, width: 120}
	var v view
	for at := range 100 {
		if at == 50 {
			s.narrow(30)
		}
		if _, err := s.Write([]byte(v.frame(state(time.Duration(at)*time.Second), s.width))); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.rows) != 7 || s.y != 7 {
		t.Errorf("%d rows, cursor at %d:\n%s", len(s.rows), s.y, strings.Join(s.rows, "\n"))
	}
}

func TestTitleCannotCommandTheTerminal(t *testing.T) {
	s := state(0)
	s.Title = "a\x1b]0;b\x07\u009b2J\nc\tÄ"
	var v view
	if got := v.draw(s, 80)[0]; got != "a]0;b2JcÄ" {
		t.Errorf("got %q", got)
	}
}

func TestViewWithoutRelayOrEnd(t *testing.T) {
	s := state(0)
	s.Relay, s.Left, s.StartP95 = false, -1, 0
	var v view
	text := strings.Join(v.draw(s, 80), "\n") + line(s)
	for _, never := range []string{"relay", "left"} {
		if strings.Contains(text, never) {
			t.Errorf("%q in %s", never, text)
		}
	}
	if strings.Count(text, "until interrupted") != 2 || strings.Count(text, "start p95 unknown") != 2 {
		t.Errorf("got %s", text)
	}
}

// failing is a writer that breaks after some writes.
type failing struct{ left int }

var errBroken = errors.New("broken")

func (f *failing) Write(b []byte) (int, error) {
	if f.left == 0 {
		return 0, errBroken
	}
	f.left--
	return len(b), nil
}

func TestBrokenOutputEndsTheView(t *testing.T) {
	for n := range 4 {
		synctest.Test(t, func(t *testing.T) {
			snapshot := func() State { return state(0) }
			if err := redraw(t.Context(), &failing{n}, snapshot, func() int { return 80 }); !errors.Is(err, errBroken) {
				t.Errorf("redraw on output that breaks after %d writes: %v", n, err)
			}
			if err := writeLines(t.Context(), &failing{n}, snapshot); !errors.Is(err, errBroken) {
				t.Errorf("plain lines on output that breaks after %d writes: %v", n, err)
			}
		})
	}
}

func TestShowWritesPlainLinesToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	synctest.Test(t, func(t *testing.T) {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		start := time.Now()
		if err := Show(ctx, f, false, func() State { return state(time.Since(start)) }); err != nil {
			t.Fatal(err)
		}
	})
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for _, c := range [][3]string{{"10s", "133", "50s"}, {"20s", "267", "40s"}, {"25s", "333", "35s"}} {
		want += fmt.Sprintf("%s: 97 playing, 2 starting, 1 stalled, %s Mbit/s, start p95 1.42 s, 13 stalls, 2 errors, relay 0.512 cores, 62 MiB, %s left\n", c[0], c[1], c[2])
	}
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSpark(t *testing.T) {
	for _, c := range []struct {
		values []float64
		width  int
		want   string
	}{
		{nil, 10, ""},
		{[]float64{0, 0}, 10, "▁▁"},
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7}, 10, "▁▂▃▄▅▆▇█"},
		{[]float64{9, 1, 1}, 2, "██"},
		{[]float64{1, 2}, 0, ""},
		{[]float64{1, 2}, -4, ""},
		{[]float64{-1, 1}, 5, "▁█"},
		{[]float64{math.NaN(), 1}, 1, "█"},
	} {
		var h history
		for i, v := range c.values {
			h.add(time.Duration(i)*time.Second, v)
			h.add(time.Duration(i)*time.Second, 1e9) // the same second again
		}
		if got := h.spark(c.width); got != c.want {
			t.Errorf("%v in %d: got %q, want %q", c.values, c.width, got, c.want)
		}
	}
	var h history
	for i := range 3 * maxHistory {
		h.add(time.Duration(i+1), 1)
	}
	if len(h.values) != maxHistory {
		t.Errorf("%d values are kept", len(h.values))
	}
}
