//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestWebApplication passes what a media server's own pages and apps use: a
// WebSocket, events without end, uploads, responses that nobody reads further.
func TestWebApplication(t *testing.T) {
	app := newApplication()
	origin := httptest.NewServer(app.handler())
	defer origin.Close()
	r := openRelay(t)
	d := open(t, share(t, r, origin.URL))

	t.Run("WebSocket", func(t *testing.T) { testWebSocket(t, d) })
	t.Run("events without end", func(t *testing.T) { testEvents(t, d) })
	t.Run("upload of 100 MB", func(t *testing.T) { testUpload(t, d) })
	t.Run("the player leaves", func(t *testing.T) { testAbort(t, app, d) })
	t.Run("forwarded headers", func(t *testing.T) { testForwardedHeaders(t, d) })
}

// application is an origin that behaves like a media server's application.
type application struct {
	abandoned chan time.Time // sent by /endless when its reader has left; room for one
}

func newApplication() *application { return &application{abandoned: make(chan time.Time, 1)} }

func (a *application) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return // Accept has answered
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil || r.Context().Err() != nil {
				a.abandoned <- time.Now()
				return
			}
		}
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"} {
			fmt.Fprintf(w, "%s\n", strings.Join(r.Header.Values(name), ","))
		}
	})
	return mux
}

func testWebSocket(t *testing.T, d device) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, res, err := websocket.Dial(ctx, d.url+"echo", nil)
	if err != nil {
		t.Fatalf("dial: %v, response %+v", err, res)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	random := rand.NewChaCha8([32]byte{3})
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		message := make([]byte, size)
		random.Read(message)
		if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
			t.Fatalf("write a message of %d bytes: %v", size, err)
		}
		kind, got, err := c.Read(ctx)
		if err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
			t.Fatalf("a message of %d bytes came back as %v with %d bytes, %v", size, kind, len(got), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// testEvents reads events from a response that never ends: each must come
// without more bytes behind it that push it through.
func testEvents(t *testing.T, d device) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i := range 5 {
		for lines.Scan() && lines.Text() == "" {
		}
		if want := fmt.Sprintf("data: %d", i); lines.Text() != want {
			t.Fatalf("event %d is %q, want %q: %v", i, lines.Text(), want, lines.Err())
		}
	}
}

func testUpload(t *testing.T, d device) {
	const size = 100_000_000
	h := sha256.New()
	body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{4}), size), h)
	client := &http.Client{Timeout: 2 * time.Minute}
	defer client.CloseIdleConnections()
	res, err := client.Post(d.url+"upload", "application/octet-stream", body)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if want := hex.EncodeToString(h.Sum(nil)); err != nil || string(got) != want {
		t.Errorf("the origin answered %s %q, %v, want the SHA-256 %s", res.Status, got, err, want)
	}
}

// testAbort leaves in the middle of a response, as a player does when it seeks:
// the origin has to notice at once.
func testAbort(t *testing.T, app *application, d device) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"endless", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.CopyN(io.Discard, res.Body, 10<<20); err != nil {
		t.Fatal(err)
	}
	left := time.Now()
	cancel()
	select {
	case at := <-app.abandoned:
		t.Logf("the origin noticed after %v", at.Sub(left).Round(time.Millisecond))
	case <-time.After(5 * time.Second):
		t.Error("5 s after the player left, the origin still sends")
	}
}

// testForwardedHeaders checks what media servers decide rights by: a device
// comes from an address that is neither private nor loopback.
func testForwardedHeaders(t *testing.T, d device) {
	status, body, err := get(d.url + "headers")
	if err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v", status, err)
	}
	lines := strings.Split(body, "\n")
	address, err := netip.ParseAddr(lines[0])
	if err != nil || !netip.MustParsePrefix("100.64.0.0/10").Contains(address) {
		t.Errorf("X-Forwarded-For is %q, want one address of 100.64.0.0/10", lines[0])
	}
	if lines[1] != "http" {
		t.Errorf("X-Forwarded-Proto is %q, want http", lines[1])
	}
	if want := strings.Trim(strings.TrimPrefix(d.url, "http:"), "/"); lines[2] != want {
		t.Errorf("X-Forwarded-Host is %q, want %q", lines[2], want)
	}
}
