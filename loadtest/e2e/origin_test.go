//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// hello is an origin that answers every request with its body.
const helloBody = "hello from home"

// startHello serves helloBody until the test ends.
func startHello(t *testing.T) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(sayHello))
	t.Cleanup(s.Close)
	return s.URL
}

func sayHello(w http.ResponseWriter, r *http.Request) { io.WriteString(w, helloBody) }

// drip is an origin whose response goes on, a little at a time, until its
// reader leaves.
func drip(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := w.Write(make([]byte, 1024)); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// startDrip serves drip at /drip and helloBody elsewhere until the test ends.
func startDrip(t *testing.T) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", sayHello)
	mux.HandleFunc("/drip", drip)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

// drops is an endless response that is being read.
type drops struct {
	came  atomic.Int64 // bytes
	ended chan error   // gets the error that ended it, nil for a clean end
}

// Write counts bytes.
func (d *drops) Write(p []byte) (int, error) {
	d.came.Add(int64(len(p)))
	return len(p), nil
}

// dripping opens the endless response and reads the first of it.
func dripping(t *testing.T, d device) *drops {
	t.Helper()
	client := &http.Client{Timeout: time.Minute}
	res, err := client.Get(d.url + "drip")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close(); client.CloseIdleConnections() })
	if _, err := io.CopyN(io.Discard, res.Body, 4096); err != nil {
		t.Fatal(err)
	}
	s := &drops{ended: make(chan error, 1)} // one value, by the goroutine below
	go func() {
		_, err := io.Copy(s, res.Body)
		s.ended <- err
	}()
	return s
}

// wantMore waits until more of a response has come than now.
func wantMore(t *testing.T, s *drops, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	for before := s.came.Load(); s.came.Load() <= before+1024; {
		select {
		case err := <-s.ended:
			t.Fatalf("the response ended after %v: %v", time.Since(begin).Round(time.Millisecond), err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(begin) > limit {
			t.Fatalf("nothing more of the response came within %v", limit)
		}
	}
	t.Logf("the response went on after %v", time.Since(begin).Round(time.Millisecond))
}

// wantBroken waits until a response has ended with an error: a clean end would
// tell the player that it has the whole file.
func wantBroken(t *testing.T, s *drops, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	select {
	case err := <-s.ended:
		if err == nil {
			t.Error("the response ended as if it were complete")
		}
		t.Logf("the response broke after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	case <-time.After(limit):
		t.Errorf("the response still goes on after %v", limit)
	}
}

// TestOriginDown stops the media server: the player gets a sentence, and the
// film when the server is back.
func TestOriginDown(t *testing.T) {
	address := freeAddress(t)
	d := open(t, share(t, openRelay(t), "http://"+address))

	status, body, err := get(d.url)
	if err != nil || status != http.StatusBadGateway {
		t.Errorf("with the origin down: status %d, %q, %v, want 502", status, body, err)
	}
	if m := missing(body, []string{"media server"}); m != nil || len(body) > 2000 {
		t.Errorf("the 502 does not say %q: %q", m, body)
	}

	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(sayHello)}
	go s.Serve(l)
	defer s.Close()
	took := eventually(t, 10*time.Second, "the origin's page comes back", func() error {
		return wantGet(d.url, helloBody)
	})
	t.Logf("back after %v", took.Round(time.Millisecond))
}

// wantPage asserts that the origin's page comes through the device's port now
// or within the limit.
func wantPage(t *testing.T, d device, limit time.Duration) {
	t.Helper()
	took := eventually(t, limit, fmt.Sprintf("%s serves the page", d.url), func() error {
		if d.ended() {
			return fmt.Errorf("the device ended with code %d", d.code)
		}
		return wantGet(d.url, helloBody)
	})
	t.Logf("the page came within %v", took.Round(time.Millisecond))
}
