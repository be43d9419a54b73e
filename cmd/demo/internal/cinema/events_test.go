package cinema

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener is an in-memory net.Listener, so that a server can run in
// virtual time.
type pipeListener struct {
	conns chan net.Conn // dial sends; unbuffered, so that dial returns once Accept has it
	done  chan struct{} // closed by Close
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.done)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	l.conns <- there
	return here, nil
}

// serve serves the built-in clip in virtual time until the returned stop.
func serve(t *testing.T) (c *Cinema, l *pipeListener, stop func()) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	l = &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: c}
	ended := make(chan struct{})
	go func() {
		server.Serve(l)
		close(ended)
	}()
	return c, l, func() {
		server.Close()
		<-ended
	}
}

func TestWireEventsCarryWhatTheRelaySaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, stop := serve(t)
		defer stop()
		c.wire.StreamOpened()
		c.wire.Seen(ToDevice, count(0, 1000))
		c.wire.Seen(ToAgent, count(0, 100))

		transport := &http.Transport{DialContext: l.dial}
		defer transport.CloseIdleConnections()
		answer, err := (&http.Client{Transport: transport}).Get("http://demo/wire")
		if err != nil {
			t.Fatal(err)
		}
		if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type is %q", got)
		}
		events := bufio.NewReader(answer.Body)
		next := func() (e event, size int) {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &e); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			if blank, _ := events.ReadString('\n'); blank != "\n" {
				t.Fatalf("%q follows the data, want a blank line", blank)
			}
			return e, len(line) + 1
		}

		first, size := next()
		want := event{
			Streams:  1,
			ToDevice: eventFlow{1000, hex.EncodeToString(count(1000-sampleSize, sampleSize))},
			ToAgent:  eventFlow{100, hex.EncodeToString(count(100-toAgentSample, toAgentSample))},
		}
		if first != want {
			t.Errorf("first event is %+v, want %+v", first, want)
		}
		if size > 1024 {
			t.Errorf("an event has %d bytes: the page promises less than 1 KiB", size)
		}

		c.wire.StreamClosed()
		c.wire.Seen(ToDevice, count(0, 24))
		second, _ := next()
		if second.Millis != eventEvery.Milliseconds() || second.Streams != 0 || second.ToDevice.Bytes != 1024 {
			t.Errorf("second event is %+v", second)
		}
		if second.Own != uint64(size) {
			t.Errorf("the view counts %d bytes of its own, want %d", second.Own, size)
		}

		answer.Body.Close() // the client leaves
		synctest.Wait()     // without a tick of the clock
		if n := len(c.viewers); n != 0 {
			t.Errorf("%d live views still run after their client left", n)
		}
	})
}

func TestWireEndsForAClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, stop := serve(t)
		defer stop()
		conn, _ := l.dial(t.Context(), "", "")
		defer conn.Close()
		conn.Write([]byte("GET /wire HTTP/1.1\r\nHost: demo\r\n\r\n"))
		synctest.Wait()
		if n := len(c.viewers); n != 1 {
			t.Fatalf("%d live views run, want 1", n)
		}
		time.Sleep(eventDeadline)
		synctest.Wait()
		if n := len(c.viewers); n != 0 {
			t.Errorf("a live view that nobody reads runs after its deadline")
		}
	})
}

func TestWireRefusesTooManyViews(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range maxViewers {
		c.viewers <- struct{}{}
	}
	if got := get(c, "/wire"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d, want %d", got.Code, http.StatusServiceUnavailable)
	}
	if len(c.viewers) != maxViewers {
		t.Error("a refused view gave back a slot that it did not have")
	}
}
