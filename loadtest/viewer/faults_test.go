package viewer

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// onRequest calls f with each request's path.
func onRequest(f func(path string)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f(r.URL.Path)
			h.ServeHTTP(w, r)
		})
	}
}

// TestOutage: a path of twice the bitrate has 30 s ahead at 40 s, when a
// segment is asked for. Half a second later the path is dead.
func TestOutage(t *testing.T) {
	for _, test := range []struct {
		outage   time.Duration
		stalled  time.Duration
		timeouts int64
	}{
		{5 * second, 0, 0},
		{20 * second, 0, 1},
		{27 * second, 0, 2},
		// Shorter than the buffer, and yet the next segment comes 1.5 s too late.
		{29 * second, 3500 * ms, 2},
		// Dry at 70 s. The request of 95.5 s brings its segment at 102.5 s, the next one comes at 104.5 s.
		{60 * second, 34500 * ms, 5},
	} {
		bubble(t, func(t *testing.T) {
			dead := 40500 * ms
			r := view{
				viewer: Config{Kind: VOD},
				steps:  []step{{0, rungRate / 4}, {dead, 0}, {dead + test.outage, rungRate / 4}},
				during: 115 * second,
			}.run(t)
			// What requests left on the link that were given up takes 20 ms each.
			if v := r.Viewers; !near(v.Stalled, test.stalled, 120*ms) || (v.Stalls > 0) != (test.stalled > 0) {
				t.Errorf("%v outage: %d stalls of %v, want %v", test.outage, v.Stalls, v.Stalled, test.stalled)
			}
			if r.Errors["timeout"] != test.timeouts || int64(len(r.Errors)) != min(test.timeouts, 1) {
				t.Errorf("%v outage: errors %v, want %d timeouts", test.outage, r.Errors, test.timeouts)
			}
		})
	}
}

func TestCorruption(t *testing.T) {
	for _, test := range []struct {
		kind Kind
		path string
	}{
		{VOD, "/vod/200000/3.m4s"},
		{VOD, "/vod/200000/init.mp4"},
		{Live, "/live/200000/473342402.m4s"},
		{Music, "/music/0.mp3"},
		{Progressive, "/film/200000.mp4"},
		{Bulk, "/film/200000.mp4"},
	} {
		bubble(t, func(t *testing.T) {
			w := view{viewer: Config{Kind: test.kind}, steps: times(4), during: time.Minute}
			w.origin.Length = 40 * second
			w.origin.Corrupt = test.path
			r := w.run(t)
			if r.Viewers.Corrupt != 1 || r.Errors["corrupt"] != 1 || len(r.Errors) != 1 {
				t.Errorf("%s with %s: %d corrupt, errors %v", test.kind, test.path, r.Viewers.Corrupt, r.Errors)
			}
			if v := r.Viewers; v.Stalls != 0 || v.Verified != v.Bytes {
				t.Errorf("%s: %+v", test.kind, v)
			}
		})
	}
}

// TestForeignBytes: content of another seed is found, and without an origin to
// compare with nothing claims to be verified.
func TestForeignBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := view{viewer: Config{Kind: VOD, URL: "http://home/vod/master.m3u8"}, steps: times(2), during: 20 * second}
		if v := w.run(t).Viewers; v.Verified != 0 || v.Bytes == 0 || v.Corrupt != 0 {
			t.Errorf("without an origin: %+v", v)
		}
		w.viewer.Verify = mustOrigin(t, 99)
		if v := w.run(t).Viewers; v.Corrupt < 5 {
			t.Errorf("another film: %+v", v)
		}
	})
}

// once answers the first request for a path itself.
func once(path string, answer http.HandlerFunc) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		done := false
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path && !done {
				done = true
				answer(w, r)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// TestFailedRequests: a request that fails is counted by its code and made
// again after a second, and the picture does not suffer from one failure.
func TestFailedRequests(t *testing.T) {
	short := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, n)) }
	}
	status := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(n) }
	}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(s)) }
	}
	for _, test := range []struct {
		kind   Kind
		path   string
		answer http.HandlerFunc
		code   string
	}{
		{VOD, "/vod/master.m3u8", status(503), "http_503"},
		{VOD, "/vod/master.m3u8", text("<html>"), "playlist"},
		{VOD, "/vod/master.m3u8", text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://elsewhere/x.m3u8\n"), "playlist"},
		{VOD, "/vod/200000/0.m4s", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere/", http.StatusFound)
		}, "redirected"},
		{VOD, "/vod/200000/media.m3u8", text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-ENDLIST\n"), "playlist"},
		{VOD, "/vod/200000/media.m3u8", text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.m4s\n"), "playlist"},
		{VOD, "/vod/200000/media.m3u8", text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx.m3u8\n"), "playlist"},
		{VOD, "/vod/200000/init.mp4", status(404), "http_404"},
		{VOD, "/vod/200000/init.mp4", short(0), "truncated"},
		{VOD, "/vod/200000/2.m4s", status(502), "http_502"},
		{VOD, "/vod/200000/2.m4s", status(206), "http_206"},
		{Live, "/live/master.m3u8", status(500), "http_500"},
		{Live, "/live/200000/media.m3u8", text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n0.m4s\n#EXT-X-ENDLIST\n"), "playlist"},
		{Live, "/live/200000/473342402.m4s", status(500), "http_500"},
		{Music, "/music/0.mp3", status(500), "http_500"},
		{Progressive, "/film/200000.mp4", status(500), "http_500"},
		{Bulk, "/film/200000.mp4", short(0), "truncated"},
	} {
		bubble(t, func(t *testing.T) {
			r := view{viewer: Config{Kind: test.kind}, steps: times(4), wrap: once(test.path, test.answer), during: 30 * second}.run(t)
			if r.Errors[test.code] != 1 || len(r.Errors) != 1 {
				t.Errorf("%s, %s: errors %v, want one %s", test.kind, test.path, r.Errors, test.code)
			}
			if v := r.Viewers; v.Stalls != 0 || v.Started != 1 || v.Bytes < 15*40_000 || v.Corrupt != 0 {
				t.Errorf("%s, %s: %+v", test.kind, test.path, v)
			}
		})
	}
}

// TestTruncatedFileGoesOn: a long response that breaks off is continued from
// where it broke, and nothing counts twice.
func TestTruncatedFileGoesOn(t *testing.T) {
	for kind, cfg := range map[Kind]Config{
		Progressive: {Kind: Progressive, Retries: 1},
		Bulk:        {Kind: Bulk, Retries: 1, URL: "http://home/film/200000.mp4"}, // without an origin to compare with
		Music:       {Kind: Music},
	} {
		bubble(t, func(t *testing.T) {
			w := view{viewer: cfg, steps: times(2), during: time.Minute}
			w.origin.Length = 20 * second
			breaks := 0
			w.wrap = func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, ".m3u8") || breaks == 3 {
						h.ServeHTTP(rw, r)
						return
					}
					breaks++
					h.ServeHTTP(&stingy{ResponseWriter: rw, left: 123_456}, r)
				})
			}
			r := w.run(t)
			if r.Errors["truncated"] != 3 || len(r.Errors) != 1 {
				t.Errorf("%s: errors %v, want 3 truncated", kind, r.Errors)
			}
			v := r.Viewers
			if kind != Bulk && (!near(v.Watched, 20*second, 5*ms) || v.Started != 1) || v.Corrupt != 0 {
				t.Errorf("%s: %+v", kind, v)
			}
			if kind != Music && v.Bytes != 20*rungRate/8 {
				t.Errorf("%s: %d bytes", kind, v.Bytes)
			}
		})
	}
}

// TestTruncatedTrackKeepsItsBuffer: what is fetched a second time neither adds
// to the buffer nor takes from it.
func TestTruncatedTrackKeepsItsBuffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := view{viewer: Config{Kind: Music}, steps: []step{{0, 400_000}}, during: time.Minute}
		w.origin.Length = 20 * second
		w.wrap = func(h http.Handler) http.Handler {
			return once("/music/0.mp3", func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(&stingy{ResponseWriter: w, left: 123_456}, r)
			})(h)
		}
		// 3.1 s of music came in 0.3 s; a second later, the same again.
		if r := w.run(t); r.Viewers.Stalls != 0 || !near(r.Viewers.Watched, 20*second, 5*ms) || r.Errors["truncated"] != 1 {
			t.Errorf("%+v, errors %v", r.Viewers, r.Errors)
		}
	})
}

// stingy writes only so many bytes and pretends to have written all.
type stingy struct {
	http.ResponseWriter
	left int
}

func (s *stingy) Write(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	if _, err := s.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// roundTrip is a path made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestGivesUp: after so many failures in a row no request is made, and the
// time before the dark screen counts.
func TestGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		client := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			n++
			return nil, &wire.ResetError{Code: wire.CodeRouteUnknown}
		})}
		begin := time.Now()
		r := view{viewer: Config{Kind: VOD, Client: client, Retries: 4}, during: 50 * second}.run(t)
		if took := time.Since(begin); !near(took, 50*second, 0) {
			t.Errorf("the viewer left after %v", took)
		}
		if n != 5 || r.Errors["route_unknown"] != 5 || r.Viewers.Requests != 5 {
			t.Errorf("%d requests, errors %v", n, r.Errors)
		}
		if h := r.Hists[result.HistStart]; r.Viewers.Started != 0 || h.Count() != 1 || !near(h.Max(), 50*second, 50*ms) {
			t.Errorf("waited %v for a picture that did not come: %+v", h.Max(), r.Viewers)
		}
	})
	bubble(t, func(t *testing.T) {
		gone := time.Now().Add(10 * second)
		r := view{
			viewer: Config{Kind: VOD, Retries: 2}, steps: times(2), during: 60 * second,
			wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if time.Now().Before(gone) {
						h.ServeHTTP(w, r)
						return
					}
					w.WriteHeader(http.StatusGone)
				})
			},
		}.run(t)
		// Six segments came, the last was asked for before the server was gone... and
		// the picture that began at 2 s stops when they are played.
		n := r.Hists[result.HistSegment].Count()
		want := 60*second - 2*second - time.Duration(n)*4*second
		if v := r.Viewers; v.Stalls != 1 || !near(v.Stalled, want, ms) || r.Errors["http_410"] != 3 {
			t.Errorf("%d segments: %+v, errors %v, want %v stalled", n, v, r.Errors, want)
		}
	})
}

// TestGivesUpForGood: a viewer that gave up presses no key any more. Five
// segments came before the server was gone, one each half second.
func TestGivesUpForGood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gone := time.Now().Add(2200 * ms)
		r := view{
			viewer: Config{Kind: Seek, Retries: 1}, steps: times(8), during: 60 * second,
			wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if time.Now().Before(gone) {
						h.ServeHTTP(w, r)
						return
					}
					w.WriteHeader(http.StatusGone)
				})
			},
		}.run(t)
		if v := r.Viewers; v.Stalls != 1 || !near(v.Watched, 20*second, ms) || !near(v.Stalled, 39500*ms, ms) {
			t.Errorf("%+v", v)
		}
	})
}

func TestCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		code string
	}{
		{statusError(404), "http_404"},
		{playlistError{errors.New("x")}, "playlist"},
		{&wire.ResetError{Code: wire.CodeMemory}, "memory"},
		{&wire.ClosedError{Code: wire.CodeShutdown}, "shutdown"},
		{errQuiet, "timeout"},
		{errShort, "truncated"},
		{errRange, "no_range"},
		{errors.New("x"), "other"},
	} {
		if got := codeOf(errors.Join(errors.New("outer"), test.err)); got != test.code {
			t.Errorf("%v is %s, want %s", test.err, got, test.code)
		}
	}
}
