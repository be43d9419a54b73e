package viewer

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
	"github.com/blindrelay/blindrelay/loadtest/result"
)

// TestPauses: the picture stands still now and then, the buffer stays full,
// and time is still accounted for in full.
func TestPauses(t *testing.T) {
	for _, kind := range []Kind{VOD, Progressive, Music} {
		bubble(t, func(t *testing.T) {
			const during = 10 * time.Minute
			paused, seconds := 0, 0
			r := view{
				viewer: Config{Kind: kind, PauseEvery: 20 * second, PauseFor: 20 * second, Seed: 1, Repeat: true}, steps: times(2), during: during,
				each: func(v *Viewer) {
					seconds++
					if s := v.State(); s.Phase == Paused {
						paused++
					} else if s.Phase == Stalled {
						t.Error("stalled")
					}
				},
			}.run(t)
			share := float64(paused) / float64(seconds)
			if share < 0.25 || share > 0.75 {
				t.Errorf("%s: paused in %d of %d seconds, want about half", kind, paused, seconds)
			}
			v := r.Viewers
			if sum := v.Watched + time.Duration(paused)*second; !near(sum, during, 30*second) || v.Stalls != 0 || len(r.Errors) != 0 {
				t.Errorf("%s: %+v, paused %d s, errors %v", kind, v, paused, r.Errors)
			}
		})
	}
}

// TestLeaves: visits last as long as they should on average, and who leaves
// early is counted.
func TestLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const visits = 100
		var sum time.Duration
		left := int64(0)
		for seed := range uint64(visits) {
			begin := time.Now()
			r := view{viewer: Config{Kind: Bulk, LeaveAfter: 20 * second, Seed: seed}, steps: []step{{0, 5000}}, during: 40 * second}.run(t)
			took := time.Since(begin)
			sum += took
			left += r.Viewers.Left
			if (took < 40*second) != (r.Viewers.Left == 1) {
				t.Errorf("left %d after %v", r.Viewers.Left, took)
			}
		}
		// The mean of an exponential time of 20 s cut off at 40 s is 17.3 s; e^-2 stay.
		if mean := sum / visits; mean < 14*second || mean > 21*second || left < 75 || left > 96 {
			t.Errorf("visits of %v on average, %d left", mean, left)
		}
	})
}

// TestDue: start-up counts from when the viewer should have come.
func TestDue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := view{viewer: Config{Kind: VOD, Due: time.Now().Add(-7 * second)}, steps: times(2), during: 10 * second}.run(t)
		if h := r.Hists[result.HistStart]; h.Count() != 1 || !near(h.Max(), 9*second, 20*ms) {
			t.Errorf("picture after %v, want 9 s", h.Max())
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Kind: VOD, URL: "http://home/x.m3u8", Client: &http.Client{}, Recorder: result.NewRecorder()}
	if v, err := New(good); err != nil || v.State().Phase != Over {
		t.Fatalf("%v", err)
	}
	for want, change := range map[string]func(*Config){
		"no kind":     func(c *Config) { c.Kind = "film" },
		"no http://":  func(c *Config) { c.URL = "home/x.m3u8" },
		"parse":       func(c *Config) { c.URL = "http://home/%zz" },
		"client":      func(c *Config) { c.Client = nil },
		"recorder":    func(c *Config) { c.Recorder = nil },
		"timeout":     func(c *Config) { c.Client = &http.Client{Timeout: 1} },
		"progressive": func(c *Config) { c.Kind = Progressive },
		"negative":    func(c *Config) { c.PauseEvery = -1 },
		"no buffer":   func(c *Config) { c.Kind, c.Buffer = Live, 10*time.Second },
		"stall ends":  func(c *Config) { c.Buffer = 4 * time.Second },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %q, got %v", want, err)
		}
	}
}

func TestPaths(t *testing.T) {
	o := mustOrigin(t, 1)
	for _, kind := range []Kind{VOD, Live, Seek, Music, Progressive, Bulk} {
		path := kind.Path(rungRate)
		if _, ok := o.Content(path); ok != (path == origin.FilmPath(rungRate)) {
			t.Errorf("%s watches %s", kind, path)
		}
	}
}
