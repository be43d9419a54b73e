//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/netns"
	"github.com/blindrelay/blindrelay/loadtest/origin"
)

// A film comes at 8 Mbit/s, as a broadcast does: there is no more of it, so that
// what is late is missing. A player has attackBuffer of it when it begins.
const (
	attackFilm   = 1_000_000 // bytes per second
	attackBuffer = 10 * time.Second
	attackPiece  = 50 * time.Millisecond
)

// attackViewer watches a film.
type attackViewer struct {
	film  origin.Film
	begin time.Time
	got   atomic.Int64 // bytes, all verified
	late  atomic.Int64 // ns, the most since it was last asked for
	err   error        // to be read after all have ended
}

// attackViewers watch until end is called.
type attackViewers struct {
	all  []*attackViewer
	wait sync.WaitGroup
	stop context.CancelFunc
}

// startFilms lets homes share a server each, and as many people watch films of
// each through a device, all in one network.
func startFilms(t *testing.T, people *netns.Namespace, relayLine string, homes, films int) *attackViewers {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &attackViewers{stop: cancel}
	t.Cleanup(func() { w.end(); w.wait.Wait() })
	for home := range homes {
		server := &http.Server{Handler: http.HandlerFunc(serveAttackFilm)}
		address := fmt.Sprintf("127.0.0.1:%d", 8000+home)
		l, err := people.Listen("tcp", address)
		must(t, err)
		go server.Serve(l)
		t.Cleanup(func() { server.Close() })
		a := agent{state: newState(t)}
		a.process = startIn(t, people, fmt.Sprintf("agent %d", home), command(context.Background(), t, "blindlink", "share",
			"--to", "http://"+address, "--state", a.state, "--relay", relayLine))
		a.firstLine(t)
		device := startIn(t, people, fmt.Sprintf("device %d", home), command(context.Background(), t, "blindlink",
			"open", "--listen", fmt.Sprintf("127.0.0.1:%d", 9000+home), "--state", newState(t), a.invite(t)))
		url := device.firstLine(t)
		client := &http.Client{Transport: &http.Transport{DialContext: people.Dial}}
		t.Cleanup(client.CloseIdleConnections)
		for range films {
			v := &attackViewer{film: origin.Film{Seed: uint64(len(w.all)), Size: 1 << 40}}
			w.all = append(w.all, v)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?seed=%d", url, v.film.Seed), nil)
			must(t, err)
			res, err := client.Do(req)
			must(t, err)
			v.begin = time.Now()
			w.wait.Go(func() {
				defer res.Body.Close()
				if err := v.watch(res.Body); ctx.Err() == nil {
					v.err = err
				}
			})
		}
	}
	return w
}

func serveAttackFilm(w http.ResponseWriter, r *http.Request) {
	film := origin.Film{Size: 1 << 40}
	fmt.Sscan(r.URL.Query().Get("seed"), &film.Seed)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.(http.Flusher).Flush()
	begin := time.Now()
	tick := time.NewTicker(attackPiece)
	defer tick.Stop()
	piece := make([]byte, 64<<10)
	for at := int64(0); ; {
		for due := int64(time.Since(begin).Seconds() * attackFilm); at < due; {
			n, _ := film.ReadAt(piece[:min(int64(len(piece)), due-at)], at)
			if _, err := w.Write(piece[:n]); err != nil {
				return
			}
			at += int64(n)
		}
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// watch verifies the film and notes how late it is.
func (v *attackViewer) watch(body io.Reader) error {
	b := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := body.Read(b)
		// Before these bytes came, the film had come this far.
		late := time.Since(v.begin) - time.Duration(at)*time.Second/attackFilm
		v.late.Store(max(v.late.Load(), int64(late)))
		if wrong := v.film.Verify(b[:n], at); wrong != nil {
			return wrong
		}
		at += int64(n)
		v.got.Store(at)
		if err != nil {
			return fmt.Errorf("the film broke after %d bytes: %w", at, err)
		}
	}
}

// end ends the films.
func (w *attackViewers) end() { w.stop() }

// wantWhole ends the films and fails the test if one broke before.
func (w *attackViewers) wantWhole(t *testing.T) {
	t.Helper()
	w.end()
	w.wait.Wait()
	for i, v := range w.all {
		if v.err != nil {
			t.Errorf("film %d: %v", i, v.err)
		}
	}
}

// shown is what came of the films in some time.
type shownFilms struct {
	rate, worst float64       // bytes per second, of all together and of the slowest
	late        time.Duration // the latest
	stalls      int           // films whose player ran dry
}

// during measures while f runs.
func (w *attackViewers) during(f func()) shownFilms {
	before := make([]int64, len(w.all))
	for i, v := range w.all {
		before[i] = v.got.Load()
		v.late.Store(0)
	}
	begin := time.Now()
	f()
	took := time.Since(begin).Seconds()
	var s shownFilms
	var rates []float64
	for i, v := range w.all {
		rate := float64(v.got.Load()-before[i]) / took
		rates = append(rates, rate)
		s.rate += rate
		late := time.Duration(v.late.Load())
		s.late = max(s.late, late)
		if late > attackBuffer {
			s.stalls++
		}
	}
	s.worst = slices.Min(rates)
	return s
}
