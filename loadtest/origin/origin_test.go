package origin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOrigin(t testing.TB, cfg Config) *Origin {
	t.Helper()
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// get asks an origin, with a Range if there is one.
func get(o *Origin, path, ranged string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if ranged != "" {
		r.Header.Set("Range", ranged)
	}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// lines returns the lines of a playlist that name something.
func lines(text string) (uris []string) {
	for line := range strings.Lines(text) {
		if line[0] != '#' {
			uris = append(uris, strings.TrimSpace(line))
		}
	}
	return uris
}

// TestEverythingListedIsServed follows the playlists to each piece of content
// and verifies it.
func TestEverythingListedIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, Config{Seed: 5, Bitrates: []int64{100_000, 300_000}, Length: 22 * time.Second})
		for master, want := range map[string]int{VOD: 6, Live: liveWindow} {
			rungs := lines(string(body(t, get(o, master, ""))))
			if len(rungs) != 2 {
				t.Fatalf("%s lists %v", master, rungs)
			}
			for _, rung := range rungs {
				dir := strings.TrimSuffix(master, "master.m3u8") + strings.TrimSuffix(rung, "media.m3u8")
				text := string(body(t, get(o, dir+"media.m3u8", "")))
				pieces := lines(text)
				if len(pieces) != want || strings.Contains(text, "#EXT-X-ENDLIST") != (master == VOD) {
					t.Errorf("%s lists %d segments:\n%s", dir, len(pieces), text)
				}
				for _, name := range append(pieces, "init.mp4") {
					check(t, o, dir+name)
				}
			}
		}
		album := lines(string(body(t, get(o, Album, ""))))
		if len(album) != 1 {
			t.Errorf("the album has %v", album)
		}
		check(t, o, "/music/"+album[0])
		check(t, o, FilmPath(300_000))
		if f, _ := o.Content(FilmPath(300_000)); f.Size != 300_000/8*22 {
			t.Errorf("the film has %d bytes", f.Size)
		}
	})
}

// check verifies what an origin serves at a path, whole and in part.
func check(t *testing.T, o *Origin, path string) {
	t.Helper()
	film, ok := o.Content(path)
	if !ok {
		t.Errorf("%s has no content", path)
		return
	}
	r := get(o, path, "")
	if b := body(t, r); r.StatusCode != 200 || int64(len(b)) != film.Size || film.Verify(b, 0) != nil {
		t.Errorf("%s: %s, %d bytes of %d, %v", path, r.Status, len(b), film.Size, film.Verify(b, 0))
	}
	r = get(o, path, "bytes=11-500")
	if b := body(t, r); r.StatusCode != 206 || len(b) != 490 || film.Verify(b, 11) != nil {
		t.Errorf("%s: a range: %s, %d bytes", path, r.Status, len(b))
	}
}

func TestNotFound(t *testing.T) {
	o := newOrigin(t, Config{Bitrates: []int64{100_000}, Length: 22 * time.Second})
	for _, path := range []string{
		"/", "/vod", "/vod/", "/vod/100000", "/vod/100000/", "/vod/100000/6.m4s", "/vod/100000/-1.m4s", "/vod/100000/+1.m4s",
		"/vod/100000/01.m4s", "/vod/100000/1.mp4", "/vod/200000/1.m4s", "/vod/200000/media.m3u8", "/vod/media.m3u8", "/vod/100000/1.m4s/x",
		"/live/100000/1.m4s", "/live/100000/99999999999.m4s", "/film/200000.mp4", "/film/100000", "/film/media.m3u8", "/music/1.mp3", "/music/x", "/music/media.m3u8",
		"/vod/100000/99999999999999999999.m4s",
	} {
		if r := get(o, path, ""); r.StatusCode != 404 {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	w := httptest.NewRecorder()
	o.ServeHTTP(w, httptest.NewRequest(http.MethodPost, VOD, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestLiveFollowsTheClock: a segment appears when it is complete, leaves the
// playlist after the window, and can still be fetched for a while.
func TestLiveFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, Config{Bitrates: []int64{100_000}})
		n := time.Now().Unix() / 2 // of the segment that has just begun
		path := fmt.Sprintf("/live/100000/%d.m4s", n)
		state := func() string {
			listed := strings.Contains(string(body(t, get(o, "/live/100000/media.m3u8", ""))), fmt.Sprintf("\n%d.m4s\n", n))
			return fmt.Sprint(listed, " ", get(o, path, "").StatusCode)
		}
		begin := time.Now()
		for _, test := range []struct {
			at   time.Duration
			want string
		}{
			{0, "false 404"},
			{1999 * time.Millisecond, "false 404"},
			{2 * time.Second, "true 200"},
			{13999 * time.Millisecond, "true 200"},
			{14 * time.Second, "false 200"},
			{27 * time.Second, "false 200"},
			{28 * time.Second, "false 404"},
		} {
			time.Sleep(test.at - time.Since(begin))
			if got := state(); got != test.want {
				t.Errorf("after %v: %s, want %s", test.at, got, test.want)
			}
		}
	})
}

// TestSizes: they vary around the bitrate by up to the spread, equally on all
// rungs, and the average is the bitrate.
func TestSizes(t *testing.T) {
	for spread, most := range map[float64]float64{0: 0.25, -1: 0, 0.5: 0.5} {
		o := newOrigin(t, Config{Bitrates: []int64{1_000_000, 8_000_000}, Spread: spread, Length: 400 * time.Second})
		for _, tree := range []string{"vod", "live"} {
			average := map[string]int64{"vod": 4_000_000, "live": 2_000_000}[tree]
			var sum int64
			var far float64
			for n := range 100 {
				high, _ := o.Content(fmt.Sprintf("/%s/8000000/%d.m4s", tree, n))
				low, _ := o.Content(fmt.Sprintf("/%s/1000000/%d.m4s", tree, n))
				if d := high.Size - 8*low.Size; d < -8 || d > 8 {
					t.Errorf("segment %d has %d and %d bytes", n, low.Size, high.Size)
				}
				sum += high.Size
				far = max(far, float64(high.Size)/float64(average)-1)
			}
			if sum != 100*average {
				t.Errorf("spread %g: %s has %d bytes, want %d", spread, tree, sum, 100*average)
			}
			if far > most || far < most*0.8 {
				t.Errorf("spread %g: %s differs by %g, want up to %g", spread, tree, far, most)
			}
		}
	}
}

func TestSeedsDiffer(t *testing.T) {
	a, b := newOrigin(t, Config{Seed: 1}), newOrigin(t, Config{Seed: 2})
	seen := make(map[uint64]string)
	for _, path := range []string{"/vod/8000000/0.m4s", "/vod/8000000/1.m4s", "/vod/5000000/0.m4s", "/live/8000000/0.m4s", "/film/8000000.mp4", "/music/0.mp3", "/vod/8000000/init.mp4"} {
		for _, o := range []*Origin{a, b} {
			f, ok := o.Content(path)
			if other := seen[f.Seed]; !ok || other != "" {
				t.Errorf("%s has the content of %s", path, other)
			}
			seen[f.Seed] = path
		}
	}
	again, _ := newOrigin(t, Config{Seed: 1}).Content("/music/0.mp3")
	if f, _ := a.Content("/music/0.mp3"); f != again {
		t.Error("two origins of one seed differ")
	}
}

// TestCorrupt: one byte of one piece is wrong, whichever part is asked for.
func TestCorrupt(t *testing.T) {
	const path = "/vod/8000000/3.m4s"
	o := newOrigin(t, Config{Corrupt: path})
	film, _ := o.Content(path)
	got := body(t, get(o, path, ""))
	want := make([]byte, film.Size)
	film.ReadAt(want, 0)
	wrong := 0
	for i := range got {
		if got[i] != want[i] {
			wrong++
		}
	}
	if wrong != 1 || film.Verify(got, 0) == nil {
		t.Errorf("%d bytes are wrong, want one", wrong)
	}
	at := film.Size / 2
	if b := body(t, get(o, path, fmt.Sprintf("bytes=%d-%d", at, at))); len(b) != 1 || film.Verify(b, at) == nil {
		t.Error("the wrong byte is right when asked for alone")
	}
	check(t, o, "/vod/8000000/2.m4s")
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin(t, Config{Latency: 300 * time.Millisecond})
		for _, path := range []string{VOD, "/vod/8000000/0.m4s"} {
			begin := time.Now()
			get(o, path, "")
			if d := time.Since(begin); d != 300*time.Millisecond {
				t.Errorf("%s took %v", path, d)
			}
		}
		r := httptest.NewRequest(http.MethodGet, VOD, nil)
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		o.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
		if d := time.Since(begin); d != 100*time.Millisecond {
			t.Errorf("a client that left held its handler for %v", d)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"rungs, but":  {Bitrates: []int64{}},
		"ascend":      {Bitrates: []int64{2_000_000, 1_000_000}},
		"not ascend":  {Bitrates: []int64{1_000_000, 1_000_000}},
		"8 kbit/s":    {Bitrates: []int64{7_000}},
		"1 Gbit/s":    {Bitrates: []int64{2_000_000_000}},
		"a film of":   {Length: 25 * time.Hour},
		"1 s to 24 h": {Length: -1},
		"differ by":   {Spread: 0.95},
		"latency":     {Latency: -1},
		"corrupt":     {Corrupt: VOD},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

func FuzzContent(f *testing.F) {
	for _, s := range []string{"/vod/8000000/0.m4s", "/live/8000000/9223372036854775807.m4s", "/film/8000000.mp4", "/music/0.mp3", "/vod/8000000/init.mp4", "///", ""} {
		f.Add(s)
	}
	o := newOrigin(f, Config{})
	f.Fuzz(func(t *testing.T, path string) {
		if film, ok := o.Content(path); ok && (film.Size <= 0 || film.Size > 16_000_000/8*601) {
			t.Fatalf("%q has %d bytes", path, film.Size)
		}
		o.playlist(path, time.Unix(1e9, 0))
		o.available(path, time.Unix(1e9, 0))
	})
}

// BenchmarkServe is the cost of a 4 s segment of 8 Mbit/s without a network.
func BenchmarkServe(b *testing.B) {
	o := newOrigin(b, Config{Spread: -1})
	r := httptest.NewRequest(http.MethodGet, "/vod/8000000/0.m4s", nil)
	b.SetBytes(4_000_000)
	b.ReportAllocs()
	for b.Loop() {
		o.ServeHTTP(&sink{header: make(http.Header)}, r)
	}
}

// sink is a ResponseWriter that keeps nothing.
type sink struct{ header http.Header }

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}
