package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

func TestEchoAndHalfClose(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		cert := transporttest.Certificate(t)
		endpoint, relay := w.dial(&cert)
		for _, ends := range [][2]Session{{endpoint, relay}, {relay, endpoint}} {
			a, b := open(t, ends[0], ends[1])
			go func() {
				io.Copy(b, b)
				b.CloseWrite()
			}()
			sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
			go func() {
				a.Write(sent)
				a.CloseWrite()
			}()
			if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
			}
			if _, err := a.Write([]byte("x")); err != net.ErrClosed {
				t.Errorf("Write after CloseWrite: %v", err)
			}
		}
		// A half that is closed leaves the other open.
		a, b := open(t, endpoint, relay)
		a.CloseWrite()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("Read after FIN: %v", err)
		}
		time.Sleep(time.Hour)
		b.Write([]byte("late"))
		b.CloseWrite()
		if got, err := io.ReadAll(a); string(got) != "late" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestDeviceTakesNoStreams: a device accepts none, so a relay must not be able
// to fill the windows of streams that nobody reads.
func TestDeviceTakesNoStreams(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		_, relay := w.dial(nil)
		if _, err := relay.TryOpenStream(); err != ErrNoStream {
			t.Errorf("the relay opens a stream to a device: %v", err)
		}
	})
}

func TestStopRead(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		a, b := open(t, endpoint, relay)
		reading := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			reading <- err
		}()
		synctest.Wait()
		a.StopRead()
		if err := <-reading; err != net.ErrClosed {
			t.Errorf("the running Read returns %v", err)
		}
		time.Sleep(2 * oneWay)
		if _, err := b.Write([]byte("x")); resetCode(t, err) != wire.CodeNone {
			t.Errorf("the other end's Write: %v", err)
		}
		if err := b.CloseWrite(); resetCode(t, err) != wire.CodeNone {
			t.Errorf("the other end's CloseWrite: %v", err)
		}
		a.Write([]byte("goes on"))
		a.CloseWrite()
		if got, err := io.ReadAll(b); string(got) != "goes on" || err != nil {
			t.Errorf("the other half: %q, %v", got, err)
		}
	})
}

func TestReset(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		cert := transporttest.Certificate(t)
		endpoint, relay := w.dial(&cert)
		for _, code := range []wire.Code{wire.CodeNone, wire.CodeRouteUnknown, wire.CodeTampered, 0xffff} {
			a, b := open(t, relay, endpoint)
			ended := make(chan error)
			go func() {
				_, err := a.Read(make([]byte, 1))
				ended <- err
			}()
			go func() {
				_, err := a.Write(make([]byte, 8<<20))
				ended <- err
			}()
			synctest.Wait()
			a.Reset(code)
			for range 2 {
				if err := <-ended; err != net.ErrClosed {
					t.Errorf("what ran returns %v", err)
				}
			}
			time.Sleep(2 * oneWay)
			if _, err := io.ReadAll(b); resetCode(t, err) != code {
				t.Errorf("Read: %v, want %v", err, code)
			}
			if _, err := b.Write([]byte("x")); resetCode(t, err) != code {
				t.Errorf("Write: %v, want %v", err, code)
			}
			if err := b.CloseWrite(); resetCode(t, err) != code {
				t.Errorf("CloseWrite: %v, want %v", err, code)
			}
			if err := a.CloseWrite(); err != net.ErrClosed {
				t.Errorf("CloseWrite after Reset: %v", err)
			}
			b.Reset(wire.CodeNone)
		}
	})
}

// TestOnStop ends a stream in every way and looks what OnStop reports.
func TestOnStop(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(endpoint Session, here, there Stream, stop func() bool)
		want error // nil: no call
	}{
		{"StopRead", func(_ Session, _, there Stream, _ func() bool) { there.StopRead() }, &wire.ResetError{Code: wire.CodeNone}},
		{"Reset", func(_ Session, _, there Stream, _ func() bool) { there.Reset(wire.CodeOff) }, &wire.ResetError{Code: wire.CodeOff}},
		{"Close", func(s Session, _, _ Stream, _ func() bool) { s.Close(wire.CodeOff, "") }, &wire.ClosedError{Code: wire.CodeOff, Remote: true}},
		{"FIN from there", func(_ Session, _, there Stream, _ func() bool) { there.CloseWrite() }, nil},
		{"CloseWrite here", func(_ Session, here, there Stream, _ func() bool) { here.CloseWrite(); there.StopRead() }, nil},
		{"Reset here", func(_ Session, here, _ Stream, _ func() bool) { here.Reset(wire.CodeOff) }, nil},
		{"stop", func(_ Session, _, there Stream, stop func() bool) { stop(); there.StopRead() }, nil},
	} {
		carriers(t, func(w *world) {
			t := w.t
			endpoint, relay := w.dial(nil)
			there, here := open(t, endpoint, relay)
			var calls []error // written by one goroutine at a time
			stop := here.OnStop(func(err error) { calls = append(calls, err) })
			c.end(endpoint, here, there, stop)
			time.Sleep(time.Second)
			synctest.Wait()
			switch {
			case c.want == nil && len(calls) > 0, c.want != nil && len(calls) != 1:
				t.Errorf("%s: called with %v, want %v", c.name, calls, c.want)
			case c.want != nil && calls[0].Error() != c.want.Error():
				t.Errorf("%s: called with %v, want %v", c.name, calls[0], c.want)
			case stop() && c.want != nil:
				t.Errorf("%s: stop says that the call never comes", c.name)
			}
		})
	}
}

// TestForeignCode shows what becomes of a code that is none of the protocol's.
func TestForeignCode(t *testing.T) {
	simulate(t, nil, func(w *world) {
		endpoint, relay := w.dial(nil)
		a, b := open(t, endpoint, relay)
		a.(quicStream).CancelWrite(quic.StreamErrorCode(1 << 40))
		if _, err := b.Read(make([]byte, 1)); resetCode(t, err) != wire.CodeInternal {
			t.Errorf("got %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		a, _ := open(t, endpoint, relay)
		start := time.Now()
		a.SetReadDeadline(start.Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		a.SetWriteDeadline(start.Add(2 * time.Second))
		if n, err := a.Write(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n < int(RelayWindows().Stream)-1 {
			t.Errorf("Write of more than the window: %d, %v", n, err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("that took %v", d)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := endpoint.AcceptStream(ctx); err != context.DeadlineExceeded {
			t.Errorf("AcceptStream: %v", err)
		}
		if _, err := w.accept(ctx); err != context.DeadlineExceeded {
			t.Errorf("Accept: %v", err)
		}
	})
}

func TestStreamLimit(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		time.Sleep(time.Second)
		var first Stream
		for i := range int(RelayWindows().Streams) {
			st, err := endpoint.TryOpenStream()
			if err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			if first == nil {
				first = st
			}
		}
		if _, err := endpoint.TryOpenStream(); err != ErrNoStream {
			t.Errorf("beyond the limit: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := endpoint.OpenStream(ctx); err != context.DeadlineExceeded {
			t.Errorf("OpenStream beyond the limit: %v", err)
		}
		// A stream that both sides have ended makes room.
		first.Reset(wire.CodeCancelled)
		st, err := relay.AcceptStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		st.Reset(wire.CodeNone)
		time.Sleep(time.Second)
		if _, err := endpoint.TryOpenStream(); err != nil {
			t.Errorf("after one stream ended: %v", err)
		}
	})
}

// TestStalledStreams fills two streams that nobody reads and moves four
// windows' worth over a third.
func TestStalledStreams(t *testing.T) {
	carriers(t, func(w *world) {
		t := w.t
		endpoint, relay := w.dial(nil)
		window := int(RelayWindows().Stream)
		for range 2 {
			a, _ := open(t, endpoint, relay)
			a.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if n, err := a.Write(make([]byte, 2*window)); !errors.Is(err, os.ErrDeadlineExceeded) || n > window {
				t.Fatalf("a stream that nobody reads took %d bytes, %v", n, err)
			}
		}
		a, b := open(t, endpoint, relay)
		a.SetWriteDeadline(time.Now().Add(time.Minute))
		go func() {
			a.Write(make([]byte, 4*window))
			a.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, b); n != int64(4*window) || err != nil {
			t.Errorf("the third stream carried %d bytes, %v", n, err)
		}
	})
}

// TestWindowsAllStalledButOne stalls every stream that a connection may have,
// in both directions of opening, except the last.
func TestWindowsAllStalledButOne(t *testing.T) {
	windows := Windows{Stream: 4 << 10, Streams: 16}
	simulate(t, nil, func(w *world) {
		client, server := dialQUIC(w, windows)
		ends := [][2]Session{{quicSession{conn: client}, quicSession{conn: server}}, {quicSession{conn: server}, quicSession{conn: client}}}
		stalled := 0
		var a, b Stream
		for _, e := range ends {
			for range windows.Streams {
				a, b = open(t, e[0], e[1])
				if stalled++; stalled == 2*int(windows.Streams) {
					break
				}
				for _, st := range []Stream{a, b} {
					st.SetWriteDeadline(time.Now().Add(time.Second))
					if n, _ := st.Write(make([]byte, 8<<10)); n > int(windows.Stream) {
						t.Fatalf("%d bytes went into a window of %d", n, windows.Stream)
					}
				}
			}
		}
		for _, half := range [][2]Stream{{a, b}, {b, a}} {
			const size = 100 << 10
			half[0].SetWriteDeadline(time.Now().Add(time.Minute))
			half[1].SetReadDeadline(time.Now().Add(time.Minute))
			go func() {
				half[0].Write(make([]byte, size))
				half[0].CloseWrite()
			}()
			if n, err := io.Copy(io.Discard, half[1]); n != size || err != nil {
				t.Errorf("the last stream carried %d bytes, %v", n, err)
			}
		}
	})
}

// dialQUIC joins the world's sockets by a connection with the given windows on
// both sides, without the listener.
func dialQUIC(w *world, windows Windows) (client, server *quic.Conn) {
	w.t.Helper()
	w.ln.Close()
	tr := &quic.Transport{Conn: w.net.relay, ConnectionIDLength: connIDLen}
	w.t.Cleanup(func() { tr.Close() })
	ln, err := tr.Listen(serverTLS(show(w.cfg.Certificate)), windows.config())
	if err != nil {
		w.t.Fatal(err)
	}
	tlsConf, err := clientTLS(w.relay, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	client, err = w.dialer.tr.Dial(context.Background(), relayAddr, tlsConf, windows.config())
	if err != nil {
		w.t.Fatal(err)
	}
	server, err = ln.Accept(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return client, server
}
