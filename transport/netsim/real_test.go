package netsim

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLatenessInRealTime reports how precise timers are here. It judges nothing:
// that is the machine's business.
func TestLatenessInRealTime(t *testing.T) {
	line := newLine(t, Config{Path: plain(Link{Rate: 20 * mbit, Delay: 10 * ms})})
	far := listenUDP(t)
	near := wrapPacketConn(t, line, listenUDP(t))
	const n = 1000
	go func() {
		for range n {
			near.WriteTo(make([]byte, 1200), far.LocalAddr())
			time.Sleep(700 * time.Microsecond)
		}
		line.Close()
		far.Close()
	}()
	buf := make([]byte, 2000)
	var gaps []time.Duration
	last := time.Time{}
	for {
		if _, _, err := far.ReadFrom(buf); err != nil {
			break
		}
		now := time.Now()
		if !last.IsZero() {
			gaps = append(gaps, now.Sub(last))
		}
		last = now
	}
	s := line.Stats().Up
	if int(s.Packets) != n || len(gaps) == 0 {
		t.Fatalf("%+v, %d gaps", s, len(gaps))
	}
	slices.Sort(gaps)
	t.Logf("%d packets: mean lateness %v, worst %v; gaps between arrivals p50 %v, p99 %v",
		n, s.Late, s.LateMax, gaps[len(gaps)/2], gaps[len(gaps)*99/100])
}

func TestRebindRealSocket(t *testing.T) {
	line := newLine(t, Config{Path: Path{RebindEvery: 20 * ms}})
	far := listenUDP(t)
	defer far.Close()
	near := wrapPacketConn(t, line, listenUDP(t))
	near.(interface{ SetReadBuffer(int) error }).SetReadBuffer(1 << 16)
	first := near.LocalAddr().String()
	far.SetDeadline(time.Now().Add(10 * time.Second))
	near.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	for {
		near.WriteTo([]byte("where am I"), far.LocalAddr())
		_, from, err := far.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if from.String() != first {
			break
		}
		time.Sleep(ms)
	}
	line.Close()
	if _, err := listenAgain(&net.UnixAddr{Net: "unixgram"}); err == nil {
		t.Error("a Unix socket got a UDP socket's place")
	}
}

func TestHTTPThroughALine(t *testing.T) {
	body := pattern(2 << 20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		w.Write(append(sent, body...))
	}))
	defer server.Close()
	line := newLine(t, Config{Seed: 1, Path: Path{
		Up:   Link{Rate: 100 * mbit, Delay: 15 * ms},
		Down: Link{Rate: 100 * mbit, Delay: 15 * ms, Loss: 0.001},
	}})
	transport := &http.Transport{DialContext: line.Dial}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	start := time.Now()
	resp, err := client.Post(server.URL, "application/octet-stream", bytes.NewReader(body[:100_000]))
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 60*ms {
		t.Errorf("dial and first byte took %v, less than two round trips", d)
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Equal(got, append(body[:100_000:100_000], body...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	d := time.Since(start)
	if least := time.Duration(float64(len(got)) * 8 / 100e6 * 1e9); d < least {
		t.Errorf("%d bytes in %v, less than the rate allows (%v)", len(got), d, least)
	}
	t.Logf("%d bytes in %v: %+v", len(got), d, line.Stats())
	transport.CloseIdleConnections()
	line.Close()
}

func TestHalfClose(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	line := newLine(t, Config{Path: plain(Link{Delay: 5 * ms, Rate: 100 * mbit})})
	defer line.Close()
	go func() { // echoes what it gets, after the end
		c, err := ln.Accept()
		if err != nil {
			return
		}
		all, _ := io.ReadAll(c)
		c.Write(all)
		c.Close()
	}()
	c, err := line.Dial(context.Background(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	want := pattern(300_000)
	if _, err := c.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(want); err == nil {
		t.Error("wrote after CloseWrite")
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
}

func TestDialErrors(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	line := newLine(t, Config{Path: plain(Link{Delay: time.Hour})})
	ctx, cancel := context.WithTimeout(context.Background(), 10*ms)
	defer cancel()
	if _, err := line.Dial(ctx, "tcp", addr); err == nil || ctx.Err() == nil {
		t.Errorf("dial over an hour: %v", err)
	}
	go line.Close()
	if _, err := line.Dial(context.Background(), "tcp", addr); err == nil {
		t.Error("dialed over a closed line")
	}
	line = newLine(t, Config{})
	defer line.Close()
	if _, err := line.Dial(context.Background(), "udp", addr); err == nil {
		t.Error("dialed UDP")
	}
	ln.Close()
	if _, err := line.Dial(context.Background(), "tcp", addr); err == nil {
		t.Error("dialed a closed port")
	}
}
