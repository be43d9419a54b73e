package viewer

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
)

// TestLiveIsTimedFromDue: on a link of twice the bitrate a segment takes 1 s.
// The newest is complete 0.5 s before the viewer comes. It asks at 0 (three
// segments), then each 2 s; the first of these is late since three segments
// take 3 s. The link is dead from 10.5 s to 15.5 s.
//
//	due 0 0 0 2 4 6 8 | 10 12 14 16 18 20 22
//	in  1 2 3 4 5 7 9 | 16 17 18 19 20 21 23
func TestLiveIsTimedFromDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := view{
			viewer: Config{Kind: Live},
			steps:  []step{{0, rungRate / 4}, {10500 * ms, 0}, {15500 * ms, rungRate / 4}},
			during: 23500 * ms,
		}.run(t)
		h := r.Hists[result.HistSegment]
		// The first three are timed from their own request, 1 s each.
		sum := 3*1 + 2 + 1 + 1 + 1 + 6 + 5 + 4 + 3 + 2 + 1 + 1
		if h.Count() != 14 || math.Abs(h.Mean().Seconds()*14-float64(sum)) > 0.1 || !near(h.Max(), 6*second, 10*ms) {
			t.Errorf("%d segments of %v on average, at most %v; want 14 of %v, at most 6 s", h.Count(), h.Mean(), h.Max(), time.Duration(sum)*second/14)
		}
		// 14 s of content until 15 s, then the second segment after resumes.
		if v := r.Viewers; v.Stalls != 1 || !near(v.Stalled, 2*second, 20*ms) || len(r.Errors) != 0 {
			t.Errorf("%+v, errors %v", v, r.Errors)
		}
	})
}

// TestLiveLosesTheWindow: after 20 s without a path the next segment has left
// the playlist; the viewer goes on near the edge.
func TestLiveLosesTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := view{
			viewer: Config{Kind: Live},
			steps:  []step{{0, rungRate / 4}, {10500 * ms, 0}, {30500 * ms, rungRate / 4}},
			during: time.Minute,
		}.run(t)
		if r.Errors["behind_window"] != 1 || r.Errors["timeout"] != 1 || len(r.Errors) != 2 {
			t.Errorf("errors %v", r.Errors)
		}
		if v := r.Viewers; v.Stalls != 1 || v.Stalled < 15*second || v.Stalled > 20*second || v.Verified != v.Bytes || v.Corrupt != 0 {
			t.Errorf("%+v", v)
		}
	})
}

// TestLiveStaysAtTheEdge: never more than 6 s ahead, no request for what does
// not exist yet, and one playlist a segment.
func TestLiveStaysAtTheEdge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		lists := 0
		r := view{
			viewer: Config{Kind: Live}, steps: times(8), during: 10*time.Minute + second,
			wrap: onRequest(func(path string) {
				if strings.HasSuffix(path, "media.m3u8") {
					lists++
				}
			}),
			each: func(v *Viewer) {
				if s := v.State(); s.Ahead > 6*second {
					t.Errorf("%v ahead", s.Ahead)
				}
			},
		}.run(t)
		if v := r.Viewers; v.Stalls != 0 || len(r.Errors) != 0 {
			t.Errorf("%+v, errors %v", v, r.Errors)
		}
		if n := r.Hists[result.HistSegment].Count(); n != 303 || lists != 301 {
			t.Errorf("%d segments and %d playlists in 601 s", n, lists)
		}
	})
}

// TestLiveServerIsLate: a server whose segments come later and later does not
// make the path look slow.
func TestLiveServerIsLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		r := view{
			viewer: Config{Kind: Live}, steps: times(8), during: 10 * time.Minute,
			wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasSuffix(r.URL.Path, "media.m3u8") {
						h.ServeHTTP(w, r)
						return
					}
					// 1% late: the newest segments are left out.
					late := int(time.Since(begin) / 200 / second)
					h.ServeHTTP(&cut{ResponseWriter: w, segments: min(late, 3)}, r)
				})
			},
		}.run(t)
		if h := r.Hists[result.HistSegment]; h.Max() > 1500*ms {
			t.Errorf("segments took up to %v", h.Max())
		}
		if len(r.Errors) != 0 {
			t.Errorf("errors %v", r.Errors)
		}
	})
}

// cut drops segments from the end of a playlist.
type cut struct {
	http.ResponseWriter
	segments int
}

func (c *cut) WriteHeader(status int) {
	c.Header().Del("Content-Length")
	c.ResponseWriter.WriteHeader(status)
}

func (c *cut) Write(p []byte) (int, error) {
	lines := strings.SplitAfter(string(p), "\n")
	lines = lines[:len(lines)-2*c.segments-1]
	if _, err := c.ResponseWriter.Write([]byte(strings.Join(lines, ""))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestLiveSwitchFails: the playlist of the bitrate that the viewer climbs to
// cannot be had at first.
func TestLiveSwitchFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := view{viewer: Config{Kind: Live, Adaptive: true}, steps: []step{{0, 400_000}}, during: time.Minute}
		w.origin.Bitrates = rungs
		w.wrap = once("/live/1600000/media.m3u8", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
		r := w.run(t)
		// The second in which nothing is asked for may cost one.
		if v := r.Viewers; v.Stalled > second || r.Errors["http_500"] != 1 || len(r.Errors) != 1 || r.Bitrates["1600000"] < 20 {
			t.Errorf("%+v, errors %v, bitrates %v", v, r.Errors, r.Bitrates)
		}
	})
}

// TestLiveTinySegments: a playlist that asks for a request each nanosecond
// does not get them.
func TestLiveTinySegments(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := view{
			viewer: Config{Kind: Live, URL: "http://home/live/x.m3u8"}, during: 20 * second,
			wrap: func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Write([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.000000001,\nx\n"))
				})
			},
		}.run(t)
		if n := r.Viewers.Requests; n < 20 || n > 100 {
			t.Errorf("%d requests in 20 s", n)
		}
	})
}

func TestLiveEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		r := view{
			viewer: Config{Kind: Live}, steps: times(4), during: time.Minute,
			wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h.ServeHTTP(w, r)
					if strings.HasSuffix(r.URL.Path, "media.m3u8") && time.Since(begin) > 9*second {
						w.Write([]byte("#EXT-X-ENDLIST\n"))
					}
				})
			},
		}.run(t)
		// Segments until 9.5 s were listed, of which three were old at 0: 8 in all.
		if took := time.Since(begin); !near(took, 16500*ms, 20*ms) || r.Viewers.Stalls != 0 || r.Viewers.Watched != 16*second {
			t.Errorf("left after %v: %+v, errors %v", took, r.Viewers, r.Errors)
		}
	})
}

// TestLivePauseReturnsToThePresent: what was missed is not fetched.
func TestLivePauseReturnsToThePresent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const during = 20 * time.Minute
		r := view{viewer: Config{Kind: Live, PauseEvery: 30 * second, PauseFor: time.Minute, Seed: 5}, steps: times(4), during: during}.run(t)
		v := r.Viewers
		if v.Stalls != 0 || len(r.Errors) != 0 || v.Watched > during*2/3 {
			t.Errorf("%+v, errors %v", v, r.Errors)
		}
		pictures := r.Hists[result.HistStart].Count()
		most := int64(v.Watched/(2*second)) + 4*pictures
		if n := r.Hists[result.HistSegment].Count(); pictures < 5 || n > most {
			t.Errorf("%d segments for %v of picture in %d parts", n, v.Watched, pictures)
		}
	})
}

// TestLiveServerFails: while no segment can be had, the viewer follows the
// playlist, and goes on with what is there afterwards.
func TestLiveServerFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := time.Now()
		r := view{
			viewer: Config{Kind: Live, Retries: 60}, steps: times(4), during: 80 * second,
			wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if d := time.Since(begin); strings.HasSuffix(r.URL.Path, ".m4s") && d > 10*second && d < 50*second {
						w.WriteHeader(http.StatusBadGateway)
						return
					}
					h.ServeHTTP(w, r)
				})
			},
		}.run(t)
		// The segments of 14 s of content were there, and the picture began at 0.5 s.
		if v := r.Viewers; v.Stalls != 1 || v.Stalled < 34*second || v.Stalled > 40*second {
			t.Errorf("%+v", v)
		}
		if r.Errors["http_502"] < 38 || r.Errors["behind_window"] < 2 || len(r.Errors) != 2 {
			t.Errorf("errors %v", r.Errors)
		}
	})
}

func TestDueOfSegments(t *testing.T) {
	begin := time.Unix(0, 0)
	list := &playlist{sequence: 100}
	for range 6 {
		list.segments = append(list.segments, segment{length: 2 * second})
	}
	c := &channel{
		ladder: &ladder{rungs: []rung{{list: list}}},
		entry:  102, edge: 105, edgeAt: begin.Add(60 * second), loaded: begin.Add(59 * second),
	}
	for number, want := range map[int64]time.Duration{103: 56 * second, 104: 58 * second, 105: 59 * second} {
		if got := c.due(number).Sub(begin); got != want {
			t.Errorf("segment %d was due at %v, want %v", number, got, want)
		}
	}
	if !c.due(102).IsZero() {
		t.Error("a segment that was there at the beginning is due before its turn")
	}
}

func TestFollow(t *testing.T) {
	list := func(sequence int64, n int) *playlist {
		l := &playlist{sequence: sequence, target: 2 * second}
		for range n {
			l.segments = append(l.segments, segment{length: 2 * second})
		}
		return l
	}
	begin := time.Unix(0, 0)
	for _, test := range []struct {
		name   string
		next   int64
		list   *playlist
		found  bool
		edge   int64
		edgeAt time.Duration
		goesOn int64
		code   string
	}{
		{"one more", 106, list(101, 6), true, 106, 2 * second, 106, ""},
		{"three more", 106, list(103, 6), true, 108, 6 * second, 106, ""},
		{"none", 106, list(100, 6), false, 105, 0, 106, ""},
		{"another bitrate is behind", 106, list(99, 6), false, 104, -2 * second, 106, ""},
		{"left the window", 103, list(110, 6), true, 115, 20 * second, 113, "behind_window"},
		{"a short window", 103, list(110, 1), true, 110, 10 * second, 110, "behind_window"},
		{"began anew", 106, list(0, 6), true, 5, 90 * second, 3, "playlist_reset"},
		{"jumped far", 106, list(1<<60, 6), true, 1<<60 + 5, 90 * second, 1<<60 + 3, "playlist_reset"},
	} {
		rec := result.NewRecorder()
		v, err := New(Config{Kind: Live, URL: "http://home/", Client: http.DefaultClient, Recorder: rec})
		if err != nil {
			t.Fatal(err)
		}
		c := &channel{
			ladder: &ladder{rungs: []rung{{list: test.list}}},
			next:   test.next, entry: 100, edge: 105, edgeAt: begin, loaded: begin.Add(90 * second),
		}
		found := v.follow(c)
		if found != test.found || c.edge != test.edge || c.edgeAt.Sub(begin) != test.edgeAt || c.next != test.goesOn {
			t.Errorf("%s: found %v, edge %d at %v, next %d", test.name, found, c.edge, c.edgeAt.Sub(begin), c.next)
		}
		if e := rec.Result().Errors; test.code == "" && len(e) > 0 || test.code != "" && e[test.code] != 1 {
			t.Errorf("%s: errors %v", test.name, e)
		}
	}
}
