package endpoint

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// tcpRig is a device's local port in front of a TCP service.
func tcpRig(t *testing.T, service func(*net.TCPConn)) (local string) {
	t.Helper()
	ln := listen(t)
	ended := make(chan struct{}) // closed when the service has
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			service(c.(*net.TCPConn))
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
	r := newRig(t)
	serving(t, func(ctx context.Context) error { return ServeTCP(ctx, r, ln.Addr().String(), nil) })
	return localPortOf(t, r)
}

func TestForwardHalfClose(t *testing.T) {
	local := tcpRig(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c) // ends only if the device's end comes through
		if err != nil {
			t.Error(err)
		}
		c.Write(reversed(b))
	})
	c := dialTCP(t, local)
	question := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(question)
	if _, err := c.Write(question); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(answer, reversed(question)) {
		t.Errorf("%d bytes came back, want the reverse of %d: %v", len(answer), len(question), err)
	}
}

func reversed(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

func TestForwardServiceSpeaksFirst(t *testing.T) {
	local := tcpRig(t, func(c *net.TCPConn) { io.WriteString(c, "220 hello\r\n") })
	b, err := io.ReadAll(dialTCP(t, local))
	if err != nil || string(b) != "220 hello\r\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestForwardAborts(t *testing.T) {
	t.Run("service", func(t *testing.T) {
		local := tcpRig(t, func(c *net.TCPConn) {
			io.CopyN(c, rand.NewChaCha8([32]byte{}), 100<<10)
			abortPlain(c)
		})
		wantAbort(t, dialTCP(t, local))
	})
	t.Run("local program", func(t *testing.T) {
		got := make(chan error, 1) // one value, by the service
		local := tcpRig(t, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 5))
			_, err := io.Copy(io.Discard, c)
			got <- err
		})
		c := dialTCP(t, local)
		io.WriteString(c, "hello")
		time.Sleep(50 * time.Millisecond) // let it arrive: an abort may overtake it
		abortPlain(c)
		if err := <-got; err == nil {
			t.Error("the service read a clean end although the program had aborted")
		}
	})
	t.Run("local program leaves an endless answer", func(t *testing.T) {
		got := make(chan error, 1) // one value, by the service
		local := tcpRig(t, func(c *net.TCPConn) {
			_, err := io.Copy(c, rand.NewChaCha8([32]byte{}))
			got <- err
		})
		c := dialTCP(t, local)
		io.ReadFull(c, make([]byte, 1<<20))
		c.Close()
		if err := <-got; err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the service ended with %v", err)
		}
	})
	t.Run("no service", func(t *testing.T) {
		ln := listen(t)
		ln.Close()
		r := newRig(t)
		serving(t, func(ctx context.Context) error { return ServeTCP(ctx, r, ln.Addr().String(), nil) })
		wantAbort(t, dialTCP(t, localPortOf(t, r)))
	})
}

// TestServerStopsReading answers before everything was sent, as a server does
// that refuses an upload: the answer must arrive whole.
func TestServerStopsReading(t *testing.T) {
	r := newRig(t)
	served := make(chan error, 1) // one value, by the goroutine below
	go func() {
		c, err := r.Accept()
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1000))
		}
		if err == nil {
			_, err = c.Write(film)
		}
		if err == nil {
			err = c.Close()
		}
		served <- err
	}()
	c := dialTCP(t, localPortOf(t, r))
	c.SetReadBuffer(256 << 10)  // so that most of the answer waits on its way
	sent := make(chan struct{}) // closed when the program can send no more
	go func() {
		defer close(sent)
		io.Copy(c, rand.NewChaCha8([32]byte{}))
	}()
	if err := <-served; err != nil {
		t.Error(err)
	}
	b, err := io.ReadAll(c)
	c.Close()
	if err != nil || !bytes.Equal(b, film) {
		t.Errorf("the program got %d bytes, want %d: %v", len(b), len(film), err)
	}
	<-sent
}

// TestStopForward ends the forwarder in the middle: both programs must see it.
func TestStopForward(t *testing.T) {
	service := tcpRig(t, func(c *net.TCPConn) { io.Copy(c, rand.NewChaCha8([32]byte{})) })
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	serving(t, func(context.Context) error { return ServeTCP(ctx, r, service, nil) })
	c := dialTCP(t, localPortOf(t, r))
	if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantAbort(t, c)
}

func TestLocalPortWithoutServer(t *testing.T) {
	serve := func(t *testing.T, err error) string {
		ln := listen(t)
		dial := func(context.Context) (net.Conn, error) { return nil, err }
		serving(t, func(ctx context.Context) error { return ServeLocal(ctx, ln, dial, nil) })
		return ln.Addr().String()
	}
	down := errors.New("the relay knows no agent for this server")
	for _, tc := range []struct {
		name, method string
		err          error
		status       int
		body         string
	}{
		{"page", "GET", down, 502, "blindlink cannot reach the media server: the relay knows no agent for this server\n"},
		{"upload", "POST", down, 502, "blindlink cannot reach the media server: the relay knows no agent for this server\n"},
		{"head", "HEAD", down, 502, ""},
		{"late", "GET", context.DeadlineExceeded, 504, "blindlink cannot reach the media server: context deadline exceeded\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, _ := http.NewRequest(tc.method, "http://"+serve(t, tc.err)+"/film", strings.NewReader(strings.Repeat("x", 400_000)))
			res, err := (&http.Transport{}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != tc.status || string(b) != tc.body {
				t.Errorf("%d %q, %v", res.StatusCode, b, err)
			}
		})
	}
	for _, first := range []string{"\x16\x03\x01\x02\x00", "SSH-2.0-x\r\n", "get / HTTP/1.1\r\n\r\n", "GET"} {
		c := dialTCP(t, serve(t, down))
		io.WriteString(c, first)
		wantAbort(t, c)
	}
}

func TestLocalPortLimit(t *testing.T) {
	ln := listen(t)
	hold := make(chan struct{}) // closed to let connections go
	at := make(chan struct{}, 8)
	a := acceptor{limit: 2, log: logOr(nil), serve: func(_ context.Context, c net.Conn) {
		at <- struct{}{}
		<-hold
		io.WriteString(c, "served")
		c.Close()
	}}
	serving(t, func(ctx context.Context) error { return a.run(ctx, ln) })
	var conns []net.Conn
	for range 5 {
		conns = append(conns, dialTCP(t, ln.Addr().String()))
	}
	<-at
	<-at
	select {
	case <-at:
		t.Error("a third connection is served beside two")
	case <-time.After(50 * time.Millisecond):
	}
	close(hold)
	for _, c := range conns {
		if b, err := io.ReadAll(c); err != nil || string(b) != "served" {
			t.Errorf("%q, %v", b, err)
		}
	}
}
