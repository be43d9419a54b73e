package viewer

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

const (
	second = time.Second
	ms     = time.Millisecond
)

// near reports whether two times differ by less than a tolerance.
func near(a, b, tolerance time.Duration) bool { return (a - b).Abs() <= tolerance }

// TestKindsAtRates compares with what follows from the thresholds by hand. A
// VOD segment takes 4 s / factor, a live one 2 s / factor; smooth kinds are
// exact to the 250 bytes that the link hands over at once, which a stall may
// lack at its beginning.
func TestKindsAtRates(t *testing.T) {
	for _, test := range []struct {
		kind    Kind
		factor  float64
		during  time.Duration
		start   time.Duration
		stalls  int64
		stalled time.Duration
		longest time.Duration
		within  time.Duration // of stalls
		late    time.Duration // of start-up, where it is rounded up to what comes at once
	}{
		{VOD, 2, 59 * second, 2 * second, 0, 0, 0, ms, 0},
		{VOD, 1.05, 59 * second, 3810 * ms, 0, 0, 0, ms, 0},
		// Dry at 9 s and 39 s; resumes with the second segment after.
		{VOD, 0.8, 59 * second, 5 * second, 2, 12 * second, 6 * second, ms, 0},

		{Live, 2, 21 * second, second, 0, 0, 0, ms, 0},
		{Live, 1.05, 21 * second, 1905 * ms, 0, 0, 0, ms, 0},
		// Dry at 4.5 s until 7.5 s, and from 19.5 s on.
		{Live, 0.8, 21 * second, 2500 * ms, 2, 4500 * ms, 3 * second, ms, 0},

		{Progressive, 2, 59 * second, 1250 * ms, 0, 0, 0, ms, 0},
		{Progressive, 1.05, 59 * second, 2381 * ms, 0, 0, 0, ms, 0},
		// 2.5 s last 12.5 s while 10 s arrive; then 5 s last 25 s.
		{Progressive, 0.8, 59 * second, 3125 * ms, 2, 12500 * ms, 6250 * ms, 50 * ms, 0},

		{Music, 2, 59 * second, 500 * ms, 0, 0, 0, ms, 30 * ms},
		{Music, 1.05, 59 * second, 952 * ms, 0, 0, 0, ms, 30 * ms},
		// Dry at 6.25 s, then each 12.5 s.
		{Music, 0.8, 59 * second, 1250 * ms, 5, 12500 * ms, 2500 * ms, 200 * ms, 30 * ms},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				rate := test.factor
				if test.kind == Music {
					rate *= 320_000.0 / rungRate
				}
				r := view{viewer: Config{Kind: test.kind}, steps: times(rate), during: test.during}.run(t)
				v := r.Viewers
				if start := r.Hists[result.HistStart].Max(); r.Hists[result.HistStart].Count() != 1 || !near(start, test.start, max(10*ms, test.late)) {
					t.Errorf("at %g the picture came after %v, want %v", test.factor, start, test.start)
				}
				if v.Stalls != test.stalls || !near(v.Stalled, test.stalled, test.within) || !near(v.Longest, test.longest, test.within) {
					t.Errorf("at %g: %d stalls of %v, longest %v; want %d of %v, longest %v", test.factor, v.Stalls, v.Stalled, v.Longest, test.stalls, test.stalled, test.longest)
				}
				if n := r.Hists[result.HistStall].Count(); n != test.stalls {
					t.Errorf("%d stalls in the histogram, want %d", n, test.stalls)
				}
				if sum := v.Watched + v.Stalled + test.start; !near(sum, test.during, max(10*ms, test.late)) {
					t.Errorf("start-up, picture and stalls are %v in all, want %v", sum, test.during)
				}
				if v.Arrived != 1 || v.Started != 1 || v.Left != 0 || v.Corrupt != 0 || len(r.Errors) != 0 {
					t.Errorf("%+v, errors %v", v, r.Errors)
				}
				if v.Bytes == 0 || v.Verified != v.Bytes {
					t.Errorf("%d of %d bytes verified", v.Verified, v.Bytes)
				}
			})
		})
	}
}

// TestBufferGoal counts the requests of a viewer whose path is twice as fast:
// the 15th segment arrives at 30 s with 32 s ahead, from then on one each 4 s.
func TestBufferGoal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		most := time.Duration(0)
		r := view{viewer: Config{Kind: VOD}, steps: times(2), during: 59 * second, each: func(v *Viewer) {
			most = max(most, v.State().Ahead)
		}}.run(t)
		if n := r.Hists[result.HistSegment].Count(); n != 22 {
			t.Errorf("%d segments, want 22", n)
		}
		if want := int64(22*4*rungRate/8 + 1024); r.Viewers.Bytes != want {
			t.Errorf("%d bytes, want %d", r.Viewers.Bytes, want)
		}
		if n := r.Viewers.Requests; n != 22+3 {
			t.Errorf("%d requests, want two playlists, one initialization section and 22 segments", n)
		}
		if r.Bitrates["200000"] != 22 {
			t.Errorf("bitrates %v", r.Bitrates)
		}
		if most != 32*second {
			t.Errorf("at most %v ahead, want 32 s", most)
		}
	})
}

// TestBuffer does the same with a buffer of its own: the fifth segment arrives
// at 10 s with 12 s ahead, from then on one each 4 s.
func TestBuffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		most := time.Duration(0)
		r := view{viewer: Config{Kind: VOD, Buffer: 10 * second}, steps: times(2), during: 59 * second, each: func(v *Viewer) {
			most = max(most, v.State().Ahead)
		}}.run(t)
		if n := r.Hists[result.HistSegment].Count(); n != 17 {
			t.Errorf("%d segments, want 17", n)
		}
		if most != 12*second {
			t.Errorf("at most %v ahead, want 12 s", most)
		}
	})
}

// TestProgressiveHoldsBack: the response is read at the bitrate once 10 s are ahead.
func TestProgressiveHoldsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		most := time.Duration(0)
		r := view{viewer: Config{Kind: Progressive}, steps: times(10), during: 60 * second, each: func(v *Viewer) {
			most = max(most, v.State().Ahead)
		}}.run(t)
		if most > 10*second+10*ms || most < 9*second {
			t.Errorf("up to %v ahead", most)
		}
		if n := r.Viewers.Requests; n != 1 {
			t.Errorf("%d requests, want one long response", n)
		}
		// It began to play after 0.25 s, and 9.75 to 10 s are ahead in the end.
		if got := float64(r.Viewers.Bytes) * 8 / rungRate; math.Abs(got-69.6) > 0.2 {
			t.Errorf("%.2f s of film were read in 60 s", got)
		}
	})
}

func TestBulk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := view{viewer: Config{Kind: Bulk}, steps: times(3), during: 60 * second}.run(t)
		v := r.Viewers
		if want := int64(60 * 3 * rungRate / 8); v.Bytes < want-2*carryMost || v.Bytes > want || v.Verified != v.Bytes {
			t.Errorf("%d bytes, %d verified, want %d", v.Bytes, v.Verified, want)
		}
		if v.Started != 1 || v.Stalls != 0 || r.Hists[result.HistStart].Count() != 0 {
			t.Errorf("%+v", v)
		}
	})
}

// TestSeek: each jump waits for one whole segment from when the key was
// pressed, whatever was on its way, and no jump is a stall.
func TestSeek(t *testing.T) {
	for _, factor := range []float64{2, 1.05} {
		bubble(t, func(t *testing.T) {
			const during = 5 * time.Minute
			r := view{viewer: Config{Kind: Seek, Seed: 3}, steps: times(factor), during: during}.run(t)
			h := r.Hists[result.HistStart]
			wait := time.Duration(4 / factor * 1e9)
			// 8 s of picture and one wait a jump, on average.
			if n, about := h.Count(), int64(during/(8*second+wait)); n < about*7/10 || n > about*13/10 {
				t.Errorf("%d pictures in %v, want about %d", n, during, about)
			}
			if !near(h.Min(), wait, 50*ms) || !near(h.Max(), wait, 50*ms) {
				t.Errorf("pictures came after %v to %v, want %v", h.Min(), h.Max(), wait)
			}
			if v := r.Viewers; v.Stalls != 0 || len(r.Errors) != 0 || v.Verified != v.Bytes {
				t.Errorf("%+v, errors %v", v, r.Errors)
			}
			if whole := r.Hists[result.HistSegment].Count(); r.Viewers.Requests <= whole+3 {
				t.Errorf("%d requests for %d segments: no jump aborted one", r.Viewers.Requests, whole)
			}
		})
	}
}

// TestSeekIsDeterministic: two viewers of one seed do the same, those of two do not.
func TestSeekIsDeterministic(t *testing.T) {
	run := func(seed uint64) (b int64) {
		bubble(t, func(t *testing.T) {
			b = view{viewer: Config{Kind: Seek, Seed: seed}, steps: times(2), during: time.Minute}.run(t).Viewers.Bytes
		})
		return b
	}
	if a, b, c := run(1), run(1), run(2); a != b || a == c {
		t.Errorf("%d and %d bytes with one seed, %d with another", a, b, c)
	}
}

func TestMusicIsGapless(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked []time.Duration
		begin := time.Now()
		r := view{
			viewer: Config{Kind: Music}, steps: []step{{0, 400_000}}, during: 15 * time.Minute,
			wrap: onRequest(func(path string) {
				if path != "/music/album.m3u8" {
					asked = append(asked, time.Since(begin))
				}
			}),
		}.run(t)
		// The album of 10 minutes is over before the test: three tracks and a last minute.
		if v := r.Viewers; v.Stalls != 0 || !near(v.Watched, 10*time.Minute, ms) || v.Bytes != 10*60*40_000 {
			t.Errorf("%+v", v)
		}
		// The picture began after 0.1 s; the next track is asked for when 30 s are left.
		want := []time.Duration{0, 150 * second, 330 * second, 510 * second}
		for i := range want {
			if i >= len(asked) || !near(asked[i], want[i]+100*ms*time.Duration(min(i, 1)), 5*ms) {
				t.Fatalf("tracks were asked for at %v, want about %v", asked, want)
			}
		}
	})
}

// TestFilmEnds: a film that ends is over, or begins again.
func TestFilmEnds(t *testing.T) {
	for _, kind := range []Kind{VOD, Progressive, Bulk} {
		bubble(t, func(t *testing.T) {
			w := view{viewer: Config{Kind: kind}, steps: times(2), during: time.Minute}
			w.origin.Length = 10 * second
			begin := time.Now()
			r := w.run(t)
			took := time.Since(begin)
			want := map[Kind]time.Duration{VOD: 12 * second, Progressive: 11250 * ms, Bulk: 5 * second}[kind]
			if !near(took, want, 5*ms) {
				t.Errorf("%s took %v, want %v", kind, took, want)
			}
			if v := r.Viewers; v.Stalls != 0 || kind != Bulk && !near(v.Watched, 10*second, ms) {
				t.Errorf("%s: %+v", kind, v)
			}
			w.viewer.Repeat = true
			r = w.run(t)
			if v := r.Viewers; v.Stalls != 0 || kind != Bulk && v.Watched < 57*second {
				t.Errorf("%s again and again: %+v", kind, v)
			}
		})
	}
}
