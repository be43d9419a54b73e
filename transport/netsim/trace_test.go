package netsim

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestParseTrace(t *testing.T) {
	for _, tt := range []struct {
		text   string
		period time.Duration
		rate   int64
		err    string
	}{
		{text: "1\n", period: ms, rate: 12e6},
		{text: "0\n5\n5\n10", period: 10 * ms, rate: 48e5},
		{text: "# drive\r\n\r\n 2000\r\n", period: 2 * time.Second, rate: 6000},
		{text: "", err: "no line"},
		{text: "0\n0\n", err: "no line"},
		{text: "1\nx\n", err: "line 2"},
		{text: "-1\n", err: "line 1"},
		{text: "1.5\n", err: "line 1"},
		{text: "5\n4\n", err: "must not go back"},
		{text: "86400001\n", err: "24 hours"},
		{text: strings.Repeat("1\n", maxTrace+1), err: "more than"},
	} {
		got, err := ParseTrace([]byte(tt.text))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%.20q: error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil || got.Period() != tt.period || got.Rate() != tt.rate {
			t.Errorf("%.20q: %v, %v; want %v, %v", tt.text, got, err, tt.period, tt.rate)
		}
	}
}

// replay is mahimahi's own way: it walks over every opportunity.
func replay(trace *Trace, arrivals []int64, sizes []int) []int64 {
	var out []int64
	left := 0 // of the packet in front
	for base := int64(0); ; base += int64(trace.Period()) {
		for _, at := range trace.at {
			now := base + int64(at)*int64(time.Millisecond)
			for room := opportunity; room > 0; {
				i := len(out)
				if i == len(arrivals) {
					return out
				}
				if left == 0 {
					if arrivals[i] > now {
						break // the opportunity is wasted
					}
					left = sizes[i]
				}
				n := min(room, left)
				room -= n
				if left -= n; left == 0 {
					out = append(out, now)
				}
			}
		}
	}
}

func TestTraceAsMahimahiReplaysIt(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		trace := &Trace{}
		for at, n := uint32(rng.IntN(2)), 1+rng.IntN(20); n > 0; n-- {
			trace.at = append(trace.at, at)
			at += uint32(rng.IntN(1 + round%7))
		}
		if trace.at[len(trace.at)-1] == 0 {
			continue
		}
		var arrivals []int64
		var sizes []int
		now := int64(0)
		for range 200 {
			switch rng.IntN(10) {
			case 0:
				now += rng.Int64N(int64(200 * ms)) // idle over several periods
			case 1, 2, 3:
				now = (now/int64(ms) + 1) * int64(ms) // at an opportunity's very moment
			default:
				now += rng.Int64N(int64(3 * ms))
			}
			arrivals = append(arrivals, now)
			sizes = append(sizes, 29+rng.IntN(1472))
		}
		want := replay(trace, arrivals, sizes)
		l := newLink(Link{Trace: trace, Queue: maxQueue}, 1, 1, 0)
		for i := range arrivals {
			if at, v := l.packet(arrivals[i], sizes[i]); v != passes || at != want[i] {
				t.Fatalf("round %d, packet %d of %d bytes at %v: leaves at %v, mahimahi lets it at %v",
					round, i, sizes[i], time.Duration(arrivals[i]), time.Duration(at), time.Duration(want[i]))
			}
		}
	}
}

func TestTraceStandsStillInOutages(t *testing.T) {
	l := Link{Trace: steady(t), Outages: Outages{Windows: []Window{{10 * ms, 20 * ms}}}}
	for _, f := range run(t, l, 1, 40, 1500, ms) {
		if f.v != passes || f.at >= int64(10*ms) && f.at < int64(30*ms) {
			t.Errorf("sent at %v, leaves at %v", time.Duration(f.sent), time.Duration(f.at))
		}
	}
}

func FuzzParseTrace(f *testing.F) {
	for _, s := range []string{"1\n", "0\n5\n5\n10\n", "# x\n7", "5\n4\n", "86400000\n", "\n\n0\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		trace, err := ParseTrace(text)
		if err != nil {
			return
		}
		if trace.Period() <= 0 || trace.Rate() < 0 {
			t.Fatalf("period %v, rate %d", trace.Period(), trace.Rate())
		}
		l := newLink(Link{Trace: trace}, 1, 1, 0)
		now, last := int64(0), int64(0)
		for i := range 50 {
			now += int64(i) * int64(trace.Period()) / 20
			at, v := l.packet(now, 1500)
			if v == passes && (at < now || at < last) {
				t.Fatalf("packet at %d leaves at %d, after one at %d", now, at, last)
			}
			last = max(last, at)
		}
	})
}
