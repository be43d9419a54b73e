package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestOriginRequests(t *testing.T) {
	_, server := startMediaServer(t)
	local, log := originRig(t, server)

	t.Run("whole", func(t *testing.T) {
		if _, body := do(t, "GET", local+"/film", nil); body != string(film) {
			t.Errorf("%d bytes that are not the film", len(body))
		}
	})
	t.Run("ranges", func(t *testing.T) {
		for range 20 {
			from := rand.IntN(len(film))
			to := from + rand.IntN(len(film)-from)
			res, body := do(t, "GET", local+"/film", nil, "Range", fmt.Sprintf("bytes=%d-%d", from, to))
			if res.StatusCode != 206 || body != string(film[from:to+1]) {
				t.Errorf("bytes %d to %d: %s with %d bytes", from, to, res.Status, len(body))
			}
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if res, _ := do(t, "HEAD", local+"/film", nil); res.ContentLength != int64(len(film)) {
			t.Errorf("length %d", res.ContentLength)
		}
	})
	t.Run("no type is invented", func(t *testing.T) {
		if res, _ := do(t, "GET", local+"/untyped", nil); len(res.Header["Content-Type"]) > 0 {
			t.Errorf("Content-Type %q", res.Header["Content-Type"])
		}
	})
	t.Run("upload", func(t *testing.T) {
		const size = 100_000_000
		h := sha256.New()
		body := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{3}), size), h)
		_, got := do(t, "POST", local+"/upload", body)
		if want := fmt.Sprintf("%d %x <nil>", size, h.Sum(nil)); got != want {
			t.Errorf("the media server got %s, want %s", got, want)
		}
	})
	t.Run("100-continue", func(t *testing.T) {
		_, got := do(t, "POST", local+"/upload", strings.NewReader("hello"), "Expect", "100-continue")
		if !strings.HasPrefix(got, "5 ") {
			t.Errorf("upload: %s", got)
		}
		sent := false
		body := readerFunc(func([]byte) (int, error) { sent = true; return 0, io.EOF })
		res, _ := do(t, "POST", local+"/refuse", body, "Expect", "100-continue")
		if res.StatusCode != http.StatusRequestEntityTooLarge || sent {
			t.Errorf("refused upload: %s, body sent: %v", res.Status, sent)
		}
	})
	t.Run("refused upload", func(t *testing.T) {
		req, _ := http.NewRequest("POST", local+"/refuse", io.LimitReader(rand.NewChaCha8([32]byte{}), 50<<20))
		res, err := client(t).Do(req)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("status %s", res.Status)
			}
		} // else: it was aborted while sending, which HTTP/1.1 leaves to luck
	})
	t.Run("103 and trailers", func(t *testing.T) {
		var hint string
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hint = fmt.Sprint(code, h.Get("Link"))
			return nil
		}}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", local+"/hints", nil)
		res, err := client(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if hint != "103</style.css>; rel=preload" || string(b) != "hinted" {
			t.Errorf("hint %q, body %q", hint, b)
		}
		if res, _ := do(t, "GET", local+"/trailers", nil); res.Trailer.Get("X-Sum") != "42" {
			t.Errorf("trailers %v", res.Trailer)
		}
	})
	t.Run("websocket", func(t *testing.T) {
		c, _, err := websocket.Dial(t.Context(), local+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		for _, size := range []int{0, 1, 30_000} {
			if err := c.Write(t.Context(), websocket.MessageBinary, film[:size]); err != nil {
				t.Fatal(err)
			}
			if _, b, err := c.Read(t.Context()); err != nil || !bytes.Equal(b, film[:size]) {
				t.Errorf("%d bytes came back as %d, %v", size, len(b), err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	})
	t.Run("no HTTP/2 behind the proxy's back", func(t *testing.T) {
		for _, protocol := range []string{"h2c", "H2C", "x, h2c"} {
			_, got := do(t, "GET", local+"/headers", nil, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", protocol, "HTTP2-Settings", "AAMAAABk")
			if strings.Contains(got, "Upgrade") || strings.Contains(got, "HTTP2-Settings") {
				t.Errorf("the media server is asked for %s: %s", protocol, got)
			}
		}
	})
	if text := log.String(); strings.Contains(text, "film") || strings.Contains(text, "upload") {
		t.Errorf("the log names requests: %s", text)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestOriginHeaders(t *testing.T) {
	_, server := startMediaServer(t)
	local, _ := originRig(t, server)
	_, body := do(t, "GET", local+"/headers?a=b;c&%zz", nil,
		"X-Forwarded-For", "127.0.0.1", "X-Real-Ip", "127.0.0.1", "Forwarded", "for=127.0.0.1",
		"Remote-User", "admin", "X-Plex-Token", "secret", "Connection", "X-Forwarded-For")
	host := strings.TrimPrefix(local, "http://")
	for _, want := range []string{
		"host " + host + "\n", "query a=b;c&%zz\n", "X-Forwarded-For: 100.", "X-Forwarded-Proto: http\r\n",
		"X-Forwarded-Host: " + host + "\r\n", "X-Plex-Token: secret",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the media server does not see %q", want)
		}
	}
	for _, not := range []string{"admin", "Real-Ip", "Forwarded: ", "for=", "For: 127"} {
		if strings.Contains(body, not) {
			t.Errorf("the media server sees %q", not)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestOriginHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(&mediaServer{})
	s.Config.ErrorLog = discardLog()
	s.StartTLS()
	t.Cleanup(s.Close)
	local, _ := originRig(t, s.URL)
	res, body := do(t, "GET", local+"/headers", nil)
	if res.StatusCode != 502 || !strings.Contains(body, "certificate") {
		t.Errorf("with a certificate of nobody: %s %q", res.Status, body)
	}

	u, _ := url.Parse(s.URL)
	o, err := NewHTTPOrigin(u, nil)
	if err != nil {
		t.Fatal(err)
	}
	o.transport.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	r := newRig(t)
	serving(t, func(ctx context.Context) error { return o.Serve(ctx, r) })
	local = "http://" + localPortOf(t, r)
	_, body = do(t, "GET", local+"/headers", nil)
	if !strings.Contains(body, "host "+u.Host+"\n") || !strings.Contains(body, "X-Forwarded-Host: "+strings.TrimPrefix(local, "http://")) {
		t.Errorf("the media server sees %s", body)
	}
}

// TestOriginBreaksOff cuts responses of every framing: none may look whole.
func TestOriginBreaksOff(t *testing.T) {
	_, server := startMediaServer(t)
	local, log := originRig(t, server)
	for _, framing := range []string{"length", "chunked"} {
		for _, proto := range []string{"HTTP/1.1", "HTTP/1.0"} {
			t.Run(framing+" "+proto, func(t *testing.T) {
				c := dialTCP(t, strings.TrimPrefix(local, "http://"))
				fmt.Fprintf(c, "GET /abort/%s %s\r\nHost: x\r\n\r\n", framing, proto)
				wantAbort(t, c)
			})
		}
	}
	t.Run("websocket", func(t *testing.T) {
		ln := listen(t)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello")
			abortPlain(c)
		}()
		local, _ := originRig(t, "http://"+ln.Addr().String())
		c := dialTCP(t, strings.TrimPrefix(local, "http://"))
		io.WriteString(c, "GET /abort HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		wantAbort(t, c)
	})
	if text := log.String(); !strings.Contains(text, "broke off") || strings.Contains(text, "/abort") {
		t.Errorf("log: %s", text)
	}
}

// TestDeviceLeaves demands that work at the media server ends at once.
func TestDeviceLeaves(t *testing.T) {
	m, server := startMediaServer(t)
	local, log := originRig(t, server)
	for name, leave := range map[string]func(*net.TCPConn){
		"abort": func(c *net.TCPConn) { abortPlain(c) },
		"close": func(c *net.TCPConn) { c.Close() },
	} {
		for _, path := range []string{"/events", "/silent"} {
			t.Run(name+path, func(t *testing.T) {
				c := dialTCP(t, strings.TrimPrefix(local, "http://"))
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				if path == "/events" {
					io.ReadFull(c, make([]byte, 300))
				} else {
					time.Sleep(50 * time.Millisecond)
				}
				leave(c)
				select {
				case <-m.left:
				case <-time.After(10 * time.Second):
					t.Error("10 s after the device left the media server still works for it")
				}
			})
		}
	}
	if text := log.String(); strings.Contains(text, "WARN") {
		t.Errorf("a device that leaves is nothing to warn of: %s", text)
	}
}

// TestStopOrigin ends the proxy while responses run.
func TestStopOrigin(t *testing.T) {
	m, server := startMediaServer(t)
	u, _ := url.Parse(server)
	o, err := NewHTTPOrigin(u, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	serving(t, func(context.Context) error { return o.Serve(ctx, r) })
	c := dialTCP(t, localPortOf(t, r))
	io.WriteString(c, "GET /events HTTP/1.0\r\n\r\n") // no length: a close would be the end
	io.ReadFull(c, make([]byte, 300))
	cancel()
	wantAbort(t, c)
	<-m.left
}

func TestOriginDown(t *testing.T) {
	ln := listen(t)
	addr := ln.Addr().String()
	ln.Close()
	local, log := originRig(t, "http://"+addr)
	for range 2 {
		res, body := do(t, "GET", local+"/film", nil)
		if res.StatusCode != 502 || !strings.Contains(body, "media server") || strings.Count(body, "\n") != 1 {
			t.Errorf("%s %q", res.Status, body)
		}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skip("somebody else took the port: ", err)
	}
	s := httptest.NewUnstartedServer(&mediaServer{})
	s.Listener.Close()
	s.Listener = ln
	s.Start()
	defer s.Close()
	if _, body := do(t, "GET", local+"/film", nil); body != string(film) {
		t.Errorf("the media server is back, but %d wrong bytes came", len(body))
	}
	if text := log.String(); strings.Count(text, "does not answer") != 1 || strings.Count(text, "answers again") != 1 || strings.Contains(text, "film") {
		t.Errorf("log: %s", text)
	}
}

func TestOriginSpeaksNonsense(t *testing.T) {
	ln := listen(t)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "A Film With A Secret Name\r\n")
			c.Close()
		}
	}()
	local, log := originRig(t, "http://"+ln.Addr().String())
	res, body := do(t, "GET", local+"/film", nil)
	if res.StatusCode != 502 || !strings.Contains(body, "media server") || strings.Contains(body+log.String(), "Secret") {
		t.Errorf("%s %q, log %s", res.Status, body, log)
	}
}

func TestOriginTargets(t *testing.T) {
	for target, ok := range map[string]bool{
		"http://127.0.0.1:8096": true, "https://media.example.org/jellyfin": true, "http://[::1]:80": true,
		"ftp://127.0.0.1": false, "http://": false, "http://:8096": false, "http://u:p@host": false,
		"http://host?x": false, "http://host/#x": false, "127.0.0.1": false,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewHTTPOrigin(u, nil)
		if (err == nil) != ok {
			t.Errorf("%s: %v", target, err)
		}
		if err != nil && strings.Contains(err.Error(), "p@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}
