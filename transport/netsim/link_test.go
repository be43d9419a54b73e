package netsim

import (
	"math"
	"testing"
	"time"
)

func TestLinkCheck(t *testing.T) {
	for name, l := range map[string]Link{
		"loss":           {Loss: 1.1},
		"nan":            {Loss: math.NaN()},
		"negative delay": {Delay: -1},
		"long delay":     {Delay: 2 * time.Hour},
		"slow":           {Rate: 100},
		"fast":           {Rate: maxRate + 1},
		"rate and trace": {Rate: mbit, Trace: steady(t)},
		"low above high": {Rate: mbit, RateLow: 2 * mbit, RateEvery: ms},
		"low, no time":   {Rate: mbit, RateLow: mbit / 2},
		"time, no low":   {Rate: mbit, RateEvery: ms},
		"queue":          {Queue: -1},
		"reorder":        {Reorder: 0.1},
		"endless burst":  {Burst: Burst{Enter: 0.1, LossBad: 1}},
		"no window":      {Outages: Outages{Windows: []Window{{0, 0}}}},
		"windows":        {Outages: Outages{Windows: []Window{{time.Second, time.Second}, {0, 1}}}},
		"endless window": {Outages: Outages{Windows: []Window{{1, math.MaxInt64}}}},
		"both":           {Outages: Outages{Windows: []Window{{0, 1}}, Every: time.Second, Shortest: 1, Longest: 1}},
		"no length":      {Outages: Outages{Every: time.Second}},
		"no gap":         {Outages: Outages{Shortest: 1, Longest: 1}},
		"too often":      {Outages: Outages{Every: 1, Shortest: 1, Longest: 1}},
		"too long":       {Outages: Outages{Every: time.Second, Shortest: 1, Longest: time.Hour}},
	} {
		if l.check() == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := New(Config{Path: Path{Up: l}}); err == nil {
			t.Errorf("%s: New takes it as an uplink", name)
		}
		if _, err := New(Config{Path: Path{Down: l}}); err == nil {
			t.Errorf("%s: New takes it as a downlink", name)
		}
	}
}
