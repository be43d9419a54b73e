//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
)

// TestRollingRestart restarts two relays one after the other, as an upgrade
// does, while eight clients download and eight small requests come each second.
// Every byte and every answer arrives.
func TestRollingRestart(t *testing.T) {
	film := origin.Film{Seed: 5, Size: 16 << 20} // 11 s when eight share the device's line
	n := newInternet(t)
	relays := []*placedRelay{n.startRelay(t, 0, "--drain-timeout", "10s"), n.startRelay(t, 1, "--drain-timeout", "10s")}
	mux := http.NewServeMux()
	mux.HandleFunc("/", sayHello)
	mux.Handle("/download", serveFilm(film))
	h := n.settle(t, mux, relays...)
	defer h.stop(t)
	for _, r := range relays {
		eventually(t, readyTimeout, "the agent is at "+r.name(), r.hasAgent)
	}

	busy := newLoad(t, n, film)
	busy.hold(t, 2*time.Second)
	for _, r := range relays {
		begin := time.Now()
		r.terminate(t)
		r.wantExit(t, readyTimeout, 0)
		t.Logf("%s ended after %.1f s", r.name(), time.Since(begin).Seconds())
		r.again(t)
		took := eventually(t, readyTimeout, "the agent is at "+r.name()+" again", r.hasAgent)
		t.Logf("%s has the agent again %.1f s after its start", r.name(), took.Seconds())
		busy.hold(t, 2*time.Second)
	}
	n.shape(t, 0)
	busy.end(t)
}

// load is what clients do until end is called.
type load struct {
	net  *internet
	film origin.Film
	once sync.Once // closes stop
	stop chan struct{}
	wait sync.WaitGroup

	mu        sync.Mutex
	downloads int // that brought every byte on one connection
	answers   int // to small requests, that were right
	failures  []error
	gap       time.Duration // the longest that any download was without a byte
	slowest   time.Duration // small request
}

func newLoad(t *testing.T, n *internet, film origin.Film) *load {
	l := &load{net: n, film: film, stop: make(chan struct{})}
	sum := sumOf(film)
	for range 8 {
		l.wait.Go(func() {
			for l.goesOn() {
				l.download(t, sum)
			}
		})
	}
	l.wait.Go(func() {
		tick := time.NewTicker(time.Second / 8)
		defer tick.Stop()
		for l.goesOn() {
			l.wait.Go(func() { l.ask(t) })
			<-tick.C
		}
	})
	t.Cleanup(l.finish)
	return l
}

// goesOn reports whether clients go on: not after end, nor after a failure.
func (l *load) goesOn() bool {
	select {
	case <-l.stop:
		return false
	default:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failures) == 0
}

// download brings the film once.
func (l *load) download(t *testing.T, sum [32]byte) {
	d := startDownload(t, l.net, deviceURL+"download", l.film)
	<-d.done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = max(l.gap, d.gap())
	connects := d.connects.Load()
	switch {
	case d.err != nil:
		l.failures = append(l.failures, d.err)
	case d.sum != sum || connects != 1:
		l.failures = append(l.failures, fmt.Errorf("a download with SHA-256 %x over %d connections, want %x over 1", d.sum, connects, sum))
	default:
		l.downloads++
	}
}

// ask sends a small request on a connection of its own.
func (l *load) ask(t *testing.T) {
	begin := time.Now()
	err := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		client, _ := l.net.client(t)
		defer client.CloseIdleConnections()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, deviceURL, nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && (res.StatusCode != http.StatusOK || string(text) != helloBody) {
			err = fmt.Errorf("a small request got status %d and %.200q", res.StatusCode, text)
		}
		return err
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, time.Since(begin))
	if err != nil {
		l.failures = append(l.failures, err)
		return
	}
	l.answers++
}

// hold waits for a time, and ends the test at the first failure.
func (l *load) hold(t *testing.T, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		l.check(t)
	}
}

func (l *load) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) > 0 {
		t.Fatalf("%d downloads and %d small requests succeeded, %d failed, the first with: %v", l.downloads, l.answers, len(l.failures), l.failures[0])
	}
}

// finish lets the clients end what they do.
func (l *load) finish() {
	l.once.Do(func() { close(l.stop) })
	l.wait.Wait()
}

// end lets the clients end what they do and checks it.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.finish()
	l.check(t)
	t.Logf("%d downloads, the longest gap %.2f s; %d small requests, the slowest %.2f s",
		l.downloads, l.gap.Seconds(), l.answers, l.slowest.Seconds())
}
