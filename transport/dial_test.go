package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// failures collects what Failed is called with.
type failures struct {
	mu    sync.Mutex
	codes []wire.Code
}

func (f *failures) add(c wire.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.codes = append(f.codes, c)
}

func (f *failures) count(code wire.Code) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.codes {
		if c == code {
			n++
		}
	}
	return n
}

// expect waits until all connections are forgotten and compares.
func (f *failures) expect(t *testing.T, want ...wire.Code) {
	t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.codes) != len(want) {
		t.Errorf("Failed was called with %v, want %v", f.codes, want)
		return
	}
	for i := range want {
		if f.codes[i] != want[i] {
			t.Errorf("Failed was called with %v, want %v", f.codes, want)
		}
	}
}

// dialError returns what Dial says, which must come within its own deadlines
// and name the relay.
func (w *world) dialError() error {
	w.t.Helper()
	start := time.Now()
	_, err := w.connect(context.Background(), nil)
	if err == nil {
		w.t.Fatal("Dial succeeds")
	}
	if d := time.Since(start); d > HandshakeTimeout {
		w.t.Errorf("Dial took %v", d)
	}
	if !strings.HasPrefix(err.Error(), "relay 1.0.0.1:4433") {
		w.t.Errorf("the error does not name the relay: %v", err)
	}
	if errors.Is(err, net.ErrClosed) {
		w.t.Errorf("the error looks as if this side had closed: %v", err)
	}
	return err
}

func (w *world) wantSentence(err error, parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			w.t.Errorf("the error does not say %q: %v", p, err)
		}
	}
}

func TestDialWrongPin(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) { c.Failed = failed.add }, func(w *world) {
		other := transporttest.Certificate(t)
		pin := PinOf(other.Leaf)
		w.relay.Pin = pin
		err := w.dialError()
		if !errors.Is(err, ErrWrongRelay) {
			t.Errorf("got %v", err)
		}
		w.wantSentence(err, "ask its operator for the new address line")
		failed.expect(t, wire.CodeSilent)
	})
}

func TestDialUntrusted(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.relay.Pin = wire.KeyPin{}
		w.wantSentence(w.dialError(), "not publicly trusted", "#PIN")
	})
}

func TestDialSilent(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.cut(true)
		w.wantSentence(w.dialError(), "does not answer", "UDP", "firewall")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := w.connect(ctx, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.wantSentence(err, "does not answer")
		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if _, err := w.connect(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// TestDialOtherService dials a server that speaks another protocol.
func TestDialOtherService(t *testing.T) {
	simulate(t, nil, func(w *world) {
		w.ln.Close()
		tr := &quic.Transport{Conn: w.net.relay}
		ln, err := tr.Listen(&tls.Config{Certificates: []tls.Certificate{w.cfg.Certificate}, NextProtos: []string{"h3"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		defer ln.Close()
		w.wantSentence(w.dialError(), "does not speak blindrelay/1", "another service")
	})
}

func TestDialRefused(t *testing.T) {
	simulate(t, nil, func(w *world) {
		go func() { // the relay has half a handshake when it stops
			time.Sleep(oneWay / 2)
			w.cut(true)
			time.Sleep(oneWay)
			w.cut(false)
			w.ln.Stop()
		}()
		w.wantSentence(w.dialError(), "refuses connections")
	})
}

func TestDialBadAddress(t *testing.T) {
	d, err := NewDialer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:nonsense"} {
		for _, dial := range []func(context.Context, wire.Relay, *tls.Certificate) (Session, error){d.Dial, d.DialQUIC, d.DialTCP} {
			if _, err := dial(context.Background(), wire.Relay{Addr: addr}, nil); err == nil {
				t.Errorf("%q is dialed", addr)
			}
		}
	}
}

// TestFailed counts attempts that come to nothing, and only those.
func TestFailed(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) { c.Failed = failed.add }, func(w *world) {
		endpoint, _ := w.dial(nil)
		endpoint.Close(wire.CodeNone, "")
		failed.expect(t)

		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"blindrelay/2"}}
		if _, err := w.dialer.tr.Dial(context.Background(), relayAddr, conf, nil); err == nil {
			t.Error("a client of another version is taken")
		}
		failed.expect(t, wire.CodeVersion)

		go func() { // the client goes silent in the middle of the handshake
			time.Sleep(oneWay / 2)
			w.cut(true)
		}()
		w.dialError()
		failed.expect(t, wire.CodeVersion, wire.CodeSilent)
	})
}

// TestRetry begins many handshakes from addresses that receive nothing: the
// relay keeps a bounded number of them, and others still get in.
func TestRetry(t *testing.T) {
	var failed failures
	simulate(t, func(c *ListenConfig) { c.Failed = failed.add }, func(w *world) {
		conf, err := clientTLS(w.relay, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var dials sync.WaitGroup
		for range 3 * calmHandshakes {
			dials.Go(func() {
				if _, err := w.dialer.tr.Dial(ctx, relayAddr, conf, nil); err == nil {
					t.Error("a client that receives nothing is taken")
				}
			})
		}
		time.Sleep(oneWay / 2)
		w.cut(true)
		time.Sleep(oneWay)
		cancel()
		dials.Wait()
		w.cut(false)
		if n := w.ln.handshakes.UnderWay(); n != calmHandshakes {
			t.Errorf("%d handshakes are under way, want %d", n, calmHandshakes)
		}
		start := time.Now()
		endpoint, relay := w.dial(nil)
		if d := time.Since(start); d != 4*oneWay+oneWay {
			t.Errorf("a handshake with a Retry took %v, want 2 round trips and the way of its end", d)
		}
		time.Sleep(time.Minute)
		if n := w.ln.handshakes.UnderWay(); n != 0 {
			t.Errorf("%d handshakes are left", n)
		}
		failed.mu.Lock()
		defer failed.mu.Unlock()
		if n := len(failed.codes); n != calmHandshakes {
			t.Errorf("%d attempts failed, want %d", n, calmHandshakes)
		}
		open(t, endpoint, relay)
	})
}

// TestSocket runs over the kernel's UDP sockets: NewDialer(nil), and a relay
// that restarts on the same port.
func TestSocket(t *testing.T) {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	cert := transporttest.Certificate(t)
	cfg := ListenConfig{Sockets: []Socket{{Conn: pc}}, Certificate: cert, ResetKey: [32]byte{1}}
	ln, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDialer(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	relay, err := wire.ParseRelay(pc.LocalAddr().String() + "#" + PinOf(cert.Leaf).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	endpoint, err := d.DialQUIC(ctx, relay, nil)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	open(t, endpoint, accepted)
	ln.Close()
	ln, err = Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	<-endpoint.Done()
	if lost, ok := errors.AsType[*LostError](endpoint.Err()); !ok || !lost.Reset {
		t.Errorf("Err is %v", endpoint.Err())
	}
}

func TestBait(t *testing.T) {
	ping := append([]byte{0x4f, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, maxPing-9)...)
	for n := range maxPing + 20 {
		p := append(ping[:len(ping):len(ping)], make([]byte, 20)...)[:n]
		b, ok := bait(p)
		if ok != (n >= 9 && n <= maxPing) {
			t.Errorf("a packet of %d bytes: %v", n, ok)
		}
		if ok && [9]byte(b[:]) != [9]byte(ping) {
			t.Errorf("the bait has another connection ID: %x", b)
		}
	}
	ping[0] |= 0x80
	if _, ok := bait(ping); ok {
		t.Error("a long header is baited")
	}
}

// TestBaitOnSocket shows that a PING on a UDP socket is followed by its bait.
func TestBaitOnSocket(t *testing.T) {
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	from, err := net.ListenUDP("udp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := net.ListenUDP("udp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	c, ok := baited(from).(quic.OOBCapablePacketConn)
	if !ok {
		t.Fatal("the socket has lost its batches and segments")
	}
	ping := append([]byte{0x4f, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, maxPing-9)...)
	if n, _, err := c.WriteMsgUDP(ping, nil, to.LocalAddr().(*net.UDPAddr)); n != maxPing || err != nil {
		t.Fatal(n, err)
	}
	to.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, want := range []int{maxPing, baitLen} {
		b := make([]byte, 100)
		if n, err := to.Read(b); n != want || err != nil || [9]byte(b) != [9]byte(ping) {
			t.Errorf("got %d bytes, %v, want %d", n, err, want)
		}
	}
}

// TestPacketSize dials over a network that carries packets of up to 1400 bytes.
func TestPacketSize(t *testing.T) {
	simulate(t, nil, func(w *world) {
		for size, passes := range map[uint16]bool{0: true, 1200: true, 1399: true, MaxPacketSize: false} {
			w.dialer.packet = size
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			s, err := w.dialer.DialQUIC(ctx, w.relay, nil)
			cancel()
			if (err == nil) != passes {
				t.Errorf("packets of %d bytes: %v, want a session: %v", size, err, passes)
			}
			if err == nil {
				s.Close(wire.CodeNone, "")
			}
		}
	})
	for _, size := range []uint16{1, minPacketSize - 1, MaxPacketSize + 1} {
		if _, err := (DialerConfig{PacketSize: size}).NewDialer(); err == nil {
			t.Errorf("a dialer with packets of %d bytes", size)
		}
	}
}
