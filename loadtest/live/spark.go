package live

import (
	"slices"
	"strings"
	"time"
)

// maxHistory bounds the sparkline: more than any terminal is wide.
const maxHistory = 512

// history is the last values, one for each second.
type history struct {
	values []float64
	last   time.Duration
}

// add keeps v, unless it is of the second kept last.
func (h *history) add(at time.Duration, v float64) {
	if len(h.values) > 0 && at <= h.last {
		return
	}
	h.last = at
	if len(h.values) == maxHistory {
		h.values = slices.Delete(h.values, 0, 1)
	}
	h.values = append(h.values, v)
}

// spark draws the last values, from zero to the highest of them, in at most
// width characters.
func (h *history) spark(width int) string {
	const bars = "▁▂▃▄▅▆▇█"
	levels := []rune(bars)
	shown := h.values[max(0, len(h.values)-max(0, width)):]
	if len(shown) == 0 {
		return ""
	}
	top := slices.Max(shown)
	var b strings.Builder
	for _, v := range shown {
		level := 0
		if top > 0 {
			level = int(v / top * float64(len(levels)-1))
		}
		b.WriteRune(levels[min(max(level, 0), len(levels)-1)])
	}
	return b.String()
}
