package endpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// film is what the media server of these tests has.
var film = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}()

// mediaServer behaves as media servers do.
type mediaServer struct {
	left chan error // one value for each endless response whose reader has left
}

func (m *mediaServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/film":
		http.ServeContent(w, r, "film.mp4", time.Unix(1e9, 0), bytes.NewReader(film))
	case "/headers":
		fmt.Fprintf(w, "host %s\nquery %s\n", r.Host, r.URL.RawQuery)
		r.Header.Write(w)
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; r.Context().Err() == nil; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		m.left <- context.Cause(r.Context())
	case "/silent":
		<-r.Context().Done()
		m.left <- context.Cause(r.Context())
	case "/upload":
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
	case "/refuse":
		http.Error(w, "no", http.StatusRequestEntityTooLarge)
	case "/hints":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hinted")
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "42")
	case "/ws":
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	case "/untyped":
		w.Header()["Content-Type"] = nil
		io.WriteString(w, "<html>")
	default: // /abort/chunked, /abort/length
		if strings.HasSuffix(r.URL.Path, "length") {
			w.Header().Set("Content-Length", "1000000")
		}
		w.Write(film[:1000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// originRig serves target to a device and returns the device's URL and log.
func originRig(t testing.TB, target string) (string, *syncBuffer) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	log := new(syncBuffer)
	o, err := NewHTTPOrigin(u, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	serving(t, func(ctx context.Context) error { return o.Serve(ctx, r) })
	return "http://" + localPortOf(t, r), log
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startMediaServer(t testing.TB) (*mediaServer, string) {
	t.Helper()
	m := &mediaServer{left: make(chan error, 4)}
	s := httptest.NewServer(m)
	t.Cleanup(s.Close)
	return m, s.URL
}

// client is a browser without manners: no proxy, no compression.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true, ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func do(t *testing.T, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = []string{header[i+1]}
	}
	res, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %d bytes", method, url, err, len(b))
	}
	return res, string(b)
}
