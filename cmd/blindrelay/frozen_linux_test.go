package main

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go"
)

// TestFrozenReaders freezes 300 readers while their agents send as much as
// they can, and compares the relay's memory with the formula in the
// documentation of package relay.
func TestFrozenReaders(t *testing.T) {
	const (
		agents, devices = 3, 30
		readers         = 300
		jitter          = 256 << 10
		deviceWindow    = 32 << 10
	)
	p := serve(t, "measured", "--admit", "open", "--jitter-buffer", "256K", "--buffer-memory", "2G", "--log-level", "error")
	before := p.usage(t, true)
	d := newDialer(t)
	var homes []*hop.Registration
	var routes []wire.Route
	for range agents {
		a, route := register(t, d, p.relay(t), transporttest.Certificate(t))
		homes, routes = append(homes, a), append(routes, route)
	}
	for i := range devices {
		freeze(t, p.relay(t), routes[i%agents], readers/devices, deviceWindow)
	}
	// What an agent can write until QUIC stops it: the relay's window and
	// buffer, less what does not fill a piece. What the device took is still
	// in the first block of the buffer.
	window := int(transport.RelayWindows().Stream)
	const piece = 16 << 10
	full := make(chan struct{}, readers) // one value by each writer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range readers {
		st, err := homes[i%agents].Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			n := 0
			for n < jitter+window-2*piece {
				k, err := st.Write(make([]byte, piece))
				n += k
				if err != nil {
					return
				}
			}
			full <- struct{}{}
		}()
	}
	for i := range readers {
		select {
		case <-full:
		case <-ctx.Done():
			t.Fatalf("%d of %d streams are full, the others still are not", i, readers)
		}
	}
	u := p.usage(t, true)
	held := u.Heap + u.Stacks - before.Heap - before.Stacks
	// The formula's terms; see "Memory" in the documentation of package relay.
	buffers := int64(readers * jitter)
	windows := int64(readers * window)
	formula := (buffers + windows*9/8) + readers*perStream + (agents+devices)*perSession
	t.Logf("%d frozen readers hold %.1f MiB, %.0f KiB each: %.1f MiB in buffers, %.1f MiB in windows; the formula says at most %.1f MiB",
		readers, mib(held), float64(held)/readers/1024, mib(buffers), mib(windows), mib(formula))
	if held > formula {
		t.Errorf("the relay holds %.1f MiB, more than the formula's %.1f MiB", mib(held), mib(formula))
	}
	if held < (buffers+windows)*9/10 {
		t.Errorf("the relay holds %.1f MiB: the buffers and windows were not full", mib(held))
	}
}

// Of the formula, in bytes.
const (
	perStream  = 64 << 10
	perSession = 128 << 10
)

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// freeze opens streams of a device that reads nothing, and whose windows are
// small so that the test is quick.
func freeze(t *testing.T, r wire.Relay, route wire.Route, streams int, window uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(ctx, r.Addr, &tls.Config{NextProtos: []string{wire.ALPN}, InsecureSkipVerify: true}, &quic.Config{
		InitialStreamReceiveWindow: window, MaxStreamReceiveWindow: window,
		InitialConnectionReceiveWindow: 1 << 30, MaxConnectionReceiveWindow: 1 << 30,
		KeepAlivePeriod: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseWithError(0, "") })
	say := func(b []byte) {
		t.Helper()
		st, err := conn.OpenStreamSync(ctx)
		if err == nil {
			_, err = st.Write(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	say(wire.Hello{}.Append(nil))
	for range streams {
		say(wire.Open{Route: route, Token: token}.Append(nil))
	}
}
