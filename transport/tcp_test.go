package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"golang.org/x/net/http2"
)

// stranger is a client that speaks TLS and writes frames by hand.
type stranger struct {
	*tls.Conn
	out *outbox
}

// stranger dials the relay and returns the session that the relay sees.
func (w *world) stranger() (stranger, Session) {
	w.t.Helper()
	raw, err := w.tcpNet.Dial(context.Background(), endpointAddr)
	if err != nil {
		w.t.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}})
	if err := conn.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	s, err := w.tcpLn.Accept(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { raw.Close() })
	return stranger{conn, newOutbox()}, s
}

// say sends frames.
func (s stranger) say(f func(o *outbox)) {
	s.out.b = nil
	f(s.out)
	s.Write(s.out.b)
}

func greeting(o *outbox) { o.settings(Windows{Stream: firstWindow}) }

// TestTCPViolations has endpoints that break the rules of frames. Each is told so
// and cut.
func TestTCPViolations(t *testing.T) {
	simulate(t, nil, func(w *world) {
		raw := func(t http2.FrameType, flags http2.Flags, id uint32, payload ...byte) func(*outbox) {
			return func(o *outbox) { greeting(o); o.f.WriteRawFrame(t, flags, id, payload) }
		}
		window := int(RelayWindows().Stream)
		for name, f := range map[string]func(*outbox){
			"another frame first":              func(o *outbox) { o.stop(1) },
			"SETTINGS twice":                   func(o *outbox) { greeting(o); greeting(o) },
			"SETTINGS, ACK":                    func(o *outbox) { o.f.WriteSettingsAck() },
			"a window too small":               func(o *outbox) { o.settings(Windows{Stream: firstWindow - 1}) },
			"a window too large":               func(o *outbox) { o.settings(Windows{Stream: maxWindow + 1}) },
			"no window":                        func(o *outbox) { o.f.WriteSettings() },
			"HTTP":                             func(o *outbox) { o.Write([]byte(http2.ClientPreface)) },
			"HEADERS":                          raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1),
			"PUSH_PROMISE":                     raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2),
			"a type below 0x80":                raw(0x70, 0, 1),
			"DATA without stream":              raw(http2.FrameData, 0, 0, 1),
			"DATA with padding":                raw(http2.FrameData, http2.FlagDataPadded, 1, 1, 0),
			"a frame too long":                 raw(http2.FrameData, 0, 1, make([]byte, maxFrame+1)...),
			"an optional frame too long":       raw(0xee, 0, 0, make([]byte, maxFrame+1)...),
			"a stream that the relay may open": raw(http2.FrameData, 0, 2, 1),
			"a stream beyond the limit":        raw(http2.FrameData, 0, uint32(2*RelayWindows().Streams+1), 1),
			"STOP without stream":              raw(frameStop, 0, 0),
			"STOP with a payload":              raw(frameStop, 0, 1, 1),
			"STREAMS of a stream":              raw(frameStreams, 0, 1, 0, 0, 0, 1),
			"STREAMS too short":                raw(frameStreams, 0, 0, 0, 0, 1),
			"RST_STREAM without stream":        raw(http2.FrameRSTStream, 0, 0, 0, 0, 0, 1),
			"RST_STREAM too short":             raw(http2.FrameRSTStream, 0, 1, 0),
			"WINDOW_UPDATE of nothing":         raw(http2.FrameWindowUpdate, 0, 1, 0, 0, 0, 0),
			"WINDOW_UPDATE of the connection":  raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 1),
			"a window that overflows":          raw(http2.FrameWindowUpdate, 0, 1, 0x7f, 0xff, 0xff, 0xff),
			"PING too short":                   raw(http2.FramePing, 0, 0, 1),
			"DATA beyond the window": func(o *outbox) {
				greeting(o)
				for sent := 0; sent <= window; sent += maxFrame {
					o.f.WriteData(1, false, make([]byte, maxFrame))
				}
			},
			"DATA beyond the end": func(o *outbox) { greeting(o); o.f.WriteData(1, true, nil); o.f.WriteData(1, false, []byte{1}) },
		} {
			c, s := w.stranger()
			c.say(f)
			select {
			case <-s.Done():
			case <-time.After(5 * time.Second):
				t.Errorf("%s: the session goes on", name)
				continue
			}
			if closed, ok := errors.AsType[*wire.ClosedError](s.Err()); !ok || closed.Code != wire.CodeProtocol || closed.Remote {
				t.Errorf("%s: %v", name, s.Err())
			}
			heard := &words{}
			if err := readFrames(c, heard); err == nil || heard.code != uint32(wire.CodeProtocol) {
				t.Errorf("%s: the endpoint heard code %d, %v", name, heard.code, err)
			}
		}
	})
}

// words takes frames and keeps the last words.
type words struct {
	code  uint32
	pings int
}

func (*words) settings(uint32, uint32) error { return nil }
func (*words) data(_ uint32, n int, _ bool, r io.Reader) error {
	_, err := io.CopyN(io.Discard, r, int64(n))
	return err
}
func (*words) credit(uint32, uint32) error { return nil }
func (*words) reset(uint32, uint32) error  { return nil }
func (*words) stop(uint32) error           { return nil }
func (*words) streams(uint32) error        { return nil }
func (w *words) ping(ack bool, _ [8]byte) error {
	if ack {
		w.pings++
	}
	return nil
}
func (w *words) goaway(code uint32, _ []byte) error { w.code = code; return nil }

// TestTCPOptionalFrames skips what a later version may send.
func TestTCPOptionalFrames(t *testing.T) {
	simulate(t, nil, func(w *world) {
		c, s := w.stranger()
		c.say(func(o *outbox) {
			greeting(o)
			o.f.WriteRawFrame(0x80, 0, 0, []byte("later"))
			o.f.WriteRawFrame(0xef, 1, 7, nil)
			o.f.WriteData(1, true, []byte("now"))
		})
		st, err := s.AcceptStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(st); string(got) != "now" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestTCPSmallFrames fills a stream's window with frames of different lengths:
// what they take in memory stays near what they hold, and arrives as it was sent.
func TestTCPSmallFrames(t *testing.T) {
	simulate(t, nil, func(w *world) {
		for _, size := range []int{1, 100, maxFrame/2 + 1, fullChunk - 1, fullChunk, maxFrame} {
			c, s := w.stranger()
			window := int(RelayWindows().Stream)
			var sent bytes.Buffer
			c.say(greeting)
			for sent.Len()+size <= window {
				c.say(func(o *outbox) {
					for range min(1000, (window-sent.Len())/size) {
						p := bytes.Repeat([]byte{byte(sent.Len() / size)}, size)
						o.f.WriteData(1, false, p)
						sent.Write(p)
					}
				})
			}
			time.Sleep(time.Second)
			st, err := s.AcceptStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			held := len(st.(*tcpStream).chunks) * maxFrame
			if most := sent.Len()*9/8 + 2*maxFrame; held > most {
				t.Errorf("frames of %d bytes: %d bytes hold %d", size, sent.Len(), held)
			}
			got := make([]byte, sent.Len())
			if _, err := io.ReadFull(st, got); err != nil || !bytes.Equal(got, sent.Bytes()) {
				t.Errorf("frames of %d bytes: what came is not what was sent, %v", size, err)
			}
			s.Close(wire.CodeNone, "")
		}
	})
}

// TestTCPDeaf has an endpoint that takes nothing from its socket: what the relay
// does with the session ends in time all the same.
func TestTCPDeaf(t *testing.T) {
	simulate(t, nil, func(w *world) {
		c, s := w.stranger()
		c.say(func(o *outbox) {
			greeting(o)
			for range 8 {
				o.f.WriteWindowUpdate(1, maxWindow/16)
			}
			for range 1000 { // the answers go nowhere and must not be kept
				o.f.WritePing(false, [8]byte{})
			}
		})
		st, err := s.AcceptStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		st.SetWriteDeadline(start.Add(time.Second))
		n, err := st.Write(make([]byte, 8<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n > 2*transporttest.TCPBuffers || time.Since(start) != time.Second {
			t.Errorf("%d bytes were written, %v, after %v", n, err, time.Since(start))
		}
		st.SetWriteDeadline(time.Time{})
		written := make(chan error)
		go func() { _, err := st.Write(make([]byte, 8<<20)); written <- err }()
		synctest.Wait()
		start = time.Now()
		st.Reset(wire.CodeCancelled)
		if err := <-written; err != net.ErrClosed || time.Since(start) != 0 {
			t.Errorf("the running Write returns %v after %v", err, time.Since(start))
		}
		s.Close(wire.CodeNone, "")
		w.tcpLn.running.close() // waits for its goroutines
		if d := time.Since(start); d > linger {
			t.Errorf("the session took %v to end", d)
		}
	})
}

// TestTCPFlood opens and resets streams without an end: nothing grows that
// nobody accepts, and an honest number of them passes.
func TestTCPFlood(t *testing.T) {
	simulate(t, nil, func(w *world) {
		c, s := w.stranger()
		limit := uint32(RelayWindows().Streams)
		c.say(func(o *outbox) {
			greeting(o)
			for n := range limit {
				o.f.WriteRSTStream(2*n+1, http2.ErrCode(wire.CodeCancelled))
			}
		})
		for range limit / 2 {
			st, err := s.AcceptStream(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Read(make([]byte, 1)); resetCode(t, err) != wire.CodeCancelled {
				t.Errorf("Read: %v", err)
			}
		}
		c.say(func(o *outbox) { // as many as were accepted, and one more
			for n := range limit/2 + 1 {
				o.f.WriteRSTStream(2*(limit+n)+1, http2.ErrCode(wire.CodeCancelled))
			}
		})
		<-s.Done()
		if closed, ok := errors.AsType[*wire.ClosedError](s.Err()); !ok || closed.Code != wire.CodeProtocol {
			t.Errorf("Err is %v", s.Err())
		}
	})
}

// dialTCPWith joins both ends by a connection with the given windows on both
// sides, without dialer and listener.
func dialTCPWith(w *world, windows Windows) (client, server *tcpSession) {
	w.t.Helper()
	raw := make(chan net.Conn)
	w.tcpLn.Stop()
	network := transporttest.NewTCPNetwork(relayAddr, oneWay)
	go func() {
		c, _ := network.Accept()
		raw <- c
	}()
	here, err := network.Dial(context.Background(), endpointAddr)
	if err != nil {
		w.t.Fatal(err)
	}
	there := <-raw
	a := tls.Client(here, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{wire.ALPN}})
	b := tls.Server(there, serverTLS(show(w.cfg.Certificate)))
	done := make(chan error)
	go func() { done <- b.Handshake() }()
	if err := errors.Join(a.Handshake(), <-done); err != nil {
		w.t.Fatal(err)
	}
	client, server = newTCPSession(a, here, true, windows), newTCPSession(b, there, false, windows)
	w.dialer.sessions.serve(client)
	w.dialer.sessions.serve(server)
	return client, server
}

// TestTCPAllStalledButOne stalls every stream that a connection may have, in
// both directions of opening, except the last.
func TestTCPAllStalledButOne(t *testing.T) {
	windows := Windows{Stream: firstWindow, Streams: firstStreams}
	simulate(t, nil, func(w *world) {
		client, server := dialTCPWith(w, windows)
		stalled := 0
		var a, b Stream
		for _, e := range [][2]Session{{client, server}, {server, client}} {
			for range windows.Streams {
				a, b = open(t, e[0], e[1])
				if stalled++; stalled == 2*int(windows.Streams) {
					break
				}
				for _, st := range []Stream{a, b} {
					st.SetWriteDeadline(time.Now().Add(time.Second))
					if n, err := st.Write(make([]byte, 2*windows.Stream)); n > int(windows.Stream) || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Fatalf("%d bytes went into a window of %d, %v", n, windows.Stream, err)
					}
				}
			}
		}
		for _, half := range [][2]Stream{{a, b}, {b, a}} {
			const size = 1 << 20
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

// TestTCPManyStreams uses up a limit many times over, from both sides at once.
func TestTCPManyStreams(t *testing.T) {
	simulate(t, nil, func(w *world) {
		client, server := dialTCPWith(w, Windows{Stream: firstWindow, Streams: firstStreams})
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		const each = 20 * firstStreams
		var wait sync.WaitGroup
		for _, e := range [][2]Session{{client, server}, {server, client}} {
			wait.Go(func() {
				var echoes sync.WaitGroup
				for range each {
					st, err := e[1].AcceptStream(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					echoes.Go(func() { io.Copy(st, st); st.CloseWrite() })
				}
				echoes.Wait()
			})
			wait.Go(func() {
				var all sync.WaitGroup
				for i := range each {
					st, err := e[0].OpenStream(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					all.Go(func() {
						sent := bytes.Repeat([]byte{byte(i)}, i*307)
						go func() { st.Write(sent); st.CloseWrite() }()
						if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, sent) {
							t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
						}
					})
				}
				all.Wait()
			})
		}
		wait.Wait()
		time.Sleep(time.Second)
		for _, s := range []*tcpSession{client, server} {
			s.mu.Lock()
			if len(s.streams)+len(s.controls)+len(s.ready) > 0 {
				t.Errorf("%d streams, %d and %d queued are left", len(s.streams), len(s.controls), len(s.ready))
			}
			s.mu.Unlock()
		}
	})
}

func TestTCPSilent(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.tcp = true
		endpoint, relay := w.dial(nil)
		e := endpoint.(*tcpSession)
		for range 100 {
			time.Sleep(77 * time.Millisecond)
			if d := e.Silent(); d > 2*oneWay {
				t.Fatalf("Silent is %v on a path that works", d)
			}
		}
		start := time.Now()
		if err := e.Check(context.Background()); err != nil || time.Since(start) > 2*oneWay {
			t.Errorf("Check: %v after %v", err, time.Since(start))
		}
		time.Sleep(time.Second)
		w.cut(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := e.Check(ctx); err != context.DeadlineExceeded {
			t.Errorf("Check: %v", err)
		}
		if d := e.Silent(); d != time.Second {
			t.Errorf("Silent is %v a second after a question", d)
		}
		<-e.Done()
		if err := e.Check(context.Background()); err == nil || e.Silent() != 0 {
			t.Errorf("of a session that is over: %v, silent for %v", err, e.Silent())
		}
		<-relay.Done()
		if err := e.Migrate(context.Background()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Migrate: %v", err)
		}
	})
}

// TestTCPAlive sends a little at many different times and is idle in between:
// the keep-alives hold the session whenever the last PING was.
func TestTCPAlive(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.tcp = true
		endpoint, relay := w.dial(nil)
		a, b := open(t, endpoint, relay)
		go io.Copy(io.Discard, b)
		for i := range 100 {
			time.Sleep(time.Duration(i) * 41 * time.Millisecond)
			a.Write([]byte("x"))
			for range 125 {
				time.Sleep(200 * time.Millisecond)
				if endpoint.Err() != nil || relay.Err() != nil {
					t.Fatalf("write %d: %v, %v", i, endpoint.Err(), relay.Err())
				}
				e := endpoint.(*tcpSession)
				e.mu.Lock()
				if d := e.now() - e.sent; d > 2*KeepAlive {
					t.Errorf("write %d: nothing was sent for %v", i, d)
				}
				e.mu.Unlock()
			}
		}
	})
}

// TestTCPCutWhileSending cuts the network at different times under a sender,
// which fills its socket then, so that no question passes any more.
func TestTCPCutWhileSending(t *testing.T) {
	for i := range 5 {
		simulate(t, nil, func(w *world) {
			w.tcp = true
			endpoint, relay := w.dial(nil)
			a, b := open(t, endpoint, relay)
			go io.Copy(io.Discard, b)
			for range 100 + 21*i {
				a.Write([]byte("x"))
				time.Sleep(10 * time.Millisecond)
			}
			w.cut(true)
			go a.Write(make([]byte, 2*transporttest.TCPBuffers))
			start := time.Now()
			<-endpoint.Done()
			<-relay.Done()
			if d := time.Since(start); d > EndpointIdle+KeepAlive+time.Second {
				t.Errorf("noticed after %v", d)
			}
		})
	}
}

// TestTCPHandshakes begins more handshakes than a relay keeps: it goes on with
// those that go on, and cuts those that say nothing.
func TestTCPHandshakes(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) {
		c.Failed, c.Handshakes = failed.add, NewHandshakes(HandshakeLimits{Max: -1, MaxPerAddress: -1, Rate: -1, RatePerAddress: -1})
	}, func(w *world) {
		w.tcp = true
		silent := make([]net.Conn, tcpHandshakes+10)
		var dials sync.WaitGroup
		for i := range silent {
			dials.Go(func() {
				var err error
				if silent[i], err = w.tcpNet.Dial(context.Background(), endpointAddr); err != nil {
					t.Error(err)
				}
			})
		}
		dials.Wait()
		synctest.Wait()
		if n := w.tcpLn.oldest.Len(); n != tcpHandshakes {
			t.Errorf("%d handshakes are under way, want %d", n, tcpHandshakes)
		}
		endpoint, relay := w.dial(nil)
		open(t, endpoint, relay)
		for i, c := range silent {
			c.SetReadDeadline(time.Now().Add(2 * HandshakeTimeout))
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("connection %d ended with %v", i, err)
			}
			c.Close()
		}
		codes := make([]wire.Code, len(silent))
		for i := range codes {
			codes[i] = wire.CodeSilent
		}
		failed.expect(t, codes...)
	})
}

func TestDialTCPErrors(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) { c.Failed = failed.add }, func(w *world) {
		w.tcp = true
		ctx := context.Background()
		pin := w.relay.Pin
		w.relay.Pin = PinOf(transporttest.Certificate(t).Leaf)
		_, err := w.connect(ctx, nil)
		if !errors.Is(err, ErrWrongRelay) {
			t.Errorf("got %v", err)
		}
		w.relay.Pin = wire.KeyPin{}
		_, err = w.connect(ctx, nil)
		w.wantSentence(err, "not publicly trusted", "#PIN")
		failed.expect(t, wire.CodeSilent, wire.CodeSilent)
		w.relay.Pin = pin

		for _, protocols := range [][]string{{"h2"}, nil} {
			raw, err := w.tcpNet.Dial(ctx, endpointAddr)
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
			if err := c.Handshake(); err == nil {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Errorf("a client that speaks %q is served", protocols)
				}
			}
			raw.Close()
		}
		failed.expect(t, wire.CodeSilent, wire.CodeSilent, wire.CodeVersion, wire.CodeVersion)

		w.cut(true)
		start := time.Now()
		_, err = w.connect(ctx, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != HandshakeTimeout {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		w.wantSentence(err, "does not answer over TCP")
		w.cut(false)

		w.tcpLn.Close()
		_, err = w.connect(ctx, nil)
		w.wantSentence(err, "does not listen on TCP", "--listen-tcp")

		for _, protocols := range [][]string{{"h2"}, nil} {
			w.tcpNet = transporttest.NewTCPNetwork(relayAddr, oneWay)
			go func() {
				raw, _ := w.tcpNet.Accept()
				c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{w.cfg.Certificate}, NextProtos: protocols})
				c.Handshake()
				io.Copy(io.Discard, c)
				c.Close()
			}()
			_, err = w.connect(ctx, nil)
			w.wantSentence(err, "does not speak blindrelay/1")
		}
	})
}

// TestTCPSocket runs over the kernel's sockets: its measurements, half-close,
// and a goodbye behind bytes that nobody has read.
func TestTCPSocket(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert := transporttest.Certificate(t)
	ln := ListenTCP(TCPListenConfig{Socket: socket, Certificate: cert})
	defer ln.Close()
	d, err := NewDialer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	relay := wire.Relay{Addr: "127.0.0.1:1", TCPPort: uint16(socket.Addr().(*net.TCPAddr).Port), Pin: PinOf(cert.Leaf)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	endpoint, err := d.DialTCP(ctx, relay, &cert)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParsePKIXPublicKey(accepted.ClientKey()); err != nil {
		t.Errorf("the agent's key: %v", err)
	}
	a, b := open(t, endpoint, accepted)
	go func() {
		a.Write(make([]byte, 3<<20))
		a.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, b); n != 3<<20 || err != nil {
		t.Errorf("%d bytes arrived, %v", n, err)
	}
	if sent, received := endpoint.Packets(); kernelRTT(endpoint.(*tcpSession).raw) > 0 && (sent == 0 || received == 0) {
		t.Errorf("%d and %d segments", sent, received)
	}
	if endpoint.RTT() <= 0 {
		t.Error("there is no round trip time")
	}
	go a.Read(make([]byte, 1))
	go endpoint.(*tcpSession).Check(ctx)
	c, _ := open(t, endpoint, accepted)
	c.Write(make([]byte, 100<<10)) // which nobody reads
	accepted.Close(wire.CodeShutdown, "the relay is going down")
	<-endpoint.Done()
	if closed, ok := errors.AsType[*wire.ClosedError](endpoint.Err()); !ok || closed.Code != wire.CodeShutdown || !closed.Remote {
		t.Errorf("Err is %v", endpoint.Err())
	}
}

// FuzzReadFrames feeds a session with whatever a stranger may send: it holds no
// more than its windows, and ends or waits for more.
func FuzzReadFrames(f *testing.F) {
	seed := func(parts ...func(o *outbox)) {
		o := newOutbox()
		greeting(o)
		for _, part := range parts {
			part(o)
		}
		f.Add(o.b)
	}
	seed()
	seed(func(o *outbox) { o.f.WriteData(2, false, []byte("abc")); o.f.WriteData(2, true, make([]byte, 300)) })
	seed(func(o *outbox) { o.f.WriteData(6, false, []byte("abc")); o.stop(6); o.f.WriteRSTStream(2, 9) })
	seed(func(o *outbox) {
		o.f.WriteWindowUpdate(2, 7)
		o.streams(99)
		o.f.WritePing(false, [8]byte{1})
		o.f.WritePing(true, [8]byte{1})
	})
	seed(func(o *outbox) { o.f.WriteGoAway(0, 3, []byte("bye")) })
	seed(func(o *outbox) { o.f.WriteRawFrame(0xee, 0, 0, binary.BigEndian.AppendUint64(nil, 1)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, other := net.Pipe()
		defer raw.Close()
		defer other.Close()
		windows := Windows{Stream: firstWindow, Streams: 4}
		s := newTCPSession(nil, raw, true, windows)
		here, err := s.TryOpenStream()
		if err != nil {
			t.Fatal(err)
		}
		here.CloseWrite()
		for half := range 2 { // with what the application and the writer do in between
			err := readFrames(bytes.NewReader(b), &tcpReader{s: s})
			if err == nil {
				t.Fatal("the reading ends without an error")
			}
			if _, wrong := errors.AsType[protocolError](err); wrong || s.err != nil {
				return // the session ends
			}
			held := 0
			for _, st := range s.streams {
				held += len(st.chunks) * maxFrame
				if st.window < 0 || st.credit > maxWindow {
					t.Errorf("a stream with a window of %d and credit of %d", st.window, st.credit)
				}
			}
			if most := (int(windows.Stream)*9/8 + 2*maxFrame) * len(s.streams); held > most || len(s.streams) > 5 || len(s.controls)+len(s.ready) > 2*len(s.streams) {
				t.Errorf("%d streams hold %d bytes, %d and %d are queued", len(s.streams), held, len(s.controls), len(s.ready))
			}
			if half == 0 {
				s.compose()
				for len(s.accept) > 0 {
					st, err := s.AcceptStream(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					st.SetReadDeadline(time.Unix(1, 0))
					st.Read(make([]byte, 100))
					st.StopRead()
					st.CloseWrite()
				}
				s.compose()
			}
		}
	})
}

// TestTCPTakenWrite stops a stream between the moment in which the last bytes of
// a Write are taken and the one in which it returns: it has written them all.
func TestTCPTakenWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTCPSession(nil, nil, true, endpointWindows())
		st, err := s.TryOpenStream()
		if err != nil {
			t.Fatal(err)
		}
		said := []byte("REGISTER")
		written := make(chan error)
		go func() {
			n, err := st.Write(said)
			if n != len(said) {
				t.Errorf("wrote %d bytes of %d", n, len(said))
			}
			written <- err
		}()
		synctest.Wait()
		s.mu.Lock()
		s.compose()
		st.(*tcpStream).stopWriting(&wire.ResetError{})
		s.mu.Unlock()
		if err := <-written; err != nil {
			t.Error(err)
		}
		if _, err := st.Write(said); err == nil {
			t.Error("the stream takes more")
		}
	})
}
