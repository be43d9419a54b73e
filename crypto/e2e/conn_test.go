package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

var (
	aLongTimeAgo = time.Unix(1, 0)
	noDeadline   = time.Time{}
)

func TestTimeoutsLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortTalk(t, suites()[0])
		a, b := newPipe(1 << 20)
		a.Write(r.up[:openPrefaceLen])
		c, err := acceptFrom(copyOf(t, r.s), b)
		if err != nil {
			t.Fatal(err)
		}
		// Each byte comes alone, and after each a deadline passes.
		var got []byte
		p := make([]byte, 1000)
		for _, x := range r.up[openPrefaceLen:] {
			a.Write([]byte{x})
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			for err = nil; err == nil; {
				var n int
				n, err = c.Read(p)
				got = append(got, p[:n]...)
			}
			if err == io.EOF && bytes.Equal(got, r.said) {
				return // with the last byte of END
			}
			if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
				t.Fatal(err)
			}
		}
		t.Fatalf("read %d of %d bytes, and no end", len(got), len(r.said))
	})
}

// TestMissingFIN: the END is sealed, the FIN is only a hint.
func TestMissingFIN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shortTalk(t, suites()[0])
		a, b := newPipe(1 << 20)
		a.Write(r.up)
		c, err := acceptFrom(copyOf(t, r.s), b)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, r.said) || time.Since(start) > 0 {
			t.Fatalf("%d of %d bytes after %v, %v", len(got), len(r.said), time.Since(start), err)
		}
	})
}

func TestLateReadOfTheFIN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device, agent := connPair(t, suites()[0], 1<<20)
		device.Write([]byte("all"))
		device.CloseWrite()
		io.ReadFull(agent, make([]byte, 3))
		time.Sleep(time.Hour)
		if n, err := agent.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("%d, %v, want io.EOF", n, err)
		}
		if n, err := agent.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("again: %d, %v, want io.EOF", n, err)
		}
	})
}

func TestClose(t *testing.T) {
	cases := []struct {
		name  string
		close func(device *Conn) error
		agent func(t *testing.T, agent *Conn)
	}{
		{"close ends the half", (*Conn).Close, func(t *testing.T, agent *Conn) {
			if got, err := io.ReadAll(agent); string(got) != "last words" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			synctest.Wait()
			if _, err := agent.Write(make([]byte, 100)); err != errUnread {
				t.Errorf("write to a closed end: %v", err)
			}
		}},
		{"reset is no end", func(c *Conn) error { c.Reset(wire.CodeTimeout); return nil }, func(t *testing.T, agent *Conn) {
			var reset *wire.ResetError
			if _, err := io.ReadAll(agent); !errors.As(err, &reset) || reset.Code != wire.CodeTimeout {
				t.Errorf("read: %v", err)
			}
		}},
		{"close after CloseWrite", func(c *Conn) error { return errors.Join(c.CloseWrite(), c.CloseWrite(), c.Close()) }, func(t *testing.T, agent *Conn) {
			if got, err := io.ReadAll(agent); string(got) != "last words" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				device, agent := w.streams(w.connect(w.allow(newIdentity(t)), 1))
				device.Write([]byte("last words"))
				blocked := make(chan error)
				go func() { _, err := device.Read(make([]byte, 1)); blocked <- err }()
				synctest.Wait()
				if err := tc.close(device); err != nil {
					t.Fatal(err)
				}
				if err := <-blocked; !errors.Is(err, net.ErrClosed) {
					t.Errorf("the running Read returned %v", err)
				}
				if _, err := device.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read after close: %v", err)
				}
				if _, err := device.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write after close: %v", err)
				}
				if err := device.Close(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("second Close: %v", err)
				}
				tc.agent(t, agent)
			})
		})
	}
}

func TestCloseDoesNotHang(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.connect(w.allow(newIdentity(t)), 1)
		device, agent := w.streams(s)
		var want int
		device.SetWriteDeadline(time.Now().Add(time.Second))
		for err := error(nil); err == nil; { // nobody reads
			var n int
			n, err = device.Write(make([]byte, 30_000))
			want += n
			if err != nil && !isTimeout(err) {
				t.Fatal(err)
			}
		}
		if want < streamLog*3/4 || want > streamLog+readAhead+256<<10 {
			t.Errorf("%d bytes found room with nobody reading", want)
		}
		start := time.Now()
		if err := device.Close(); err != nil || time.Since(start) > 0 {
			t.Errorf("close with a full log: %v after %v", err, time.Since(start))
		}
		if got, err := io.ReadAll(agent); err != nil || len(got) != want {
			t.Errorf("%d of %d bytes arrived after Close, %v", len(got), want, err)
		}

		device, agent = w.streams(s)
		wrote := make(chan error)
		go func() { _, err := device.Write(make([]byte, 8<<20)); wrote <- err }()
		synctest.Wait()
		if err := device.Close(); err == nil {
			t.Error("close beside a running Write says that all is well")
		}
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the running Write returned %v", err)
		}
		if _, err := io.ReadAll(agent); err == nil {
			t.Error("the cut stream reads as a clean end")
		}
	})
}

// TestHTTP runs net/http over sealed streams: keep-alive, deadlines of its
// background reads, bodies both ways.
func TestHTTP(t *testing.T) {
	w := newWorld(t, nil)
	s := w.connect(w.allow(newIdentity(t)), 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(rw, "%d %x %v %s", n, h.Sum(nil), err, r.RemoteAddr)
	})}
	go srv.Serve(listener{w.server})
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.OpenStream(ctx) }}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	for i := range 30 {
		body := bytes.Repeat([]byte{byte(i)}, i*i*1000)
		resp, err := client.Post("http://home/", "film", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := fmt.Sprintf("%d %x <nil> %s", len(body), sha256.Sum256(body), s.self); err != nil || string(got) != want {
			t.Fatalf("answer %q, %v; want %q", got, err, want)
		}
	}
	if n := w.server.Sessions()[0].Streams; n != 1 {
		t.Errorf("%d streams for 30 requests, want 1", n)
	}
	tr.CloseIdleConnections()
	srv.Close()
}

type listener struct{ *Server }

func (l listener) Accept() (net.Conn, error) { return l.Server.Accept() }
func (l listener) Addr() net.Addr            { return addr{} }
func (l listener) Close() error              { return l.Server.Close() }
