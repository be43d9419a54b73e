package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/udp"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// bare is what the relay is measured against: the same sockets and QUIC
// settings, and io.CopyBuffer between the two streams in each direction. The
// first session is the home side's, each stream of any other goes there.
func bare() {
	sockets, err := udp.Listen(udp.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		panic(err)
	}
	id, err := identityFiles{dir: os.Args[1]}.load()
	if err != nil {
		panic(err)
	}
	ln, err := listen(sockets, id, nil, nil)
	if err != nil {
		panic(err)
	}
	pin := transport.PinOf(id.certificate.Leaf)
	fmt.Println(wire.Relay{Addr: sockets.Conns()[0].LocalAddr().String(), Pin: pin})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	home, err := ln.Accept(ctx)
	for err == nil {
		var away transport.Session
		if away, err = ln.Accept(ctx); err == nil {
			go bareSession(away, home)
		}
	}
}

func bareSession(away, home transport.Session) {
	for {
		a, err := away.AcceptStream(context.Background())
		if err != nil {
			return
		}
		b, err := home.TryOpenStream()
		if err != nil {
			panic(err)
		}
		for _, half := range [][2]transport.Stream{{a, b}, {b, a}} {
			go func() {
				buffer := make([]byte, 32<<10)
				// Without ReadFrom and WriteTo, which would not use the buffer.
				io.CopyBuffer(struct{ io.Writer }{half[0]}, struct{ io.Reader }{half[1]}, buffer)
				half[0].CloseWrite()
			}()
		}
	}
}

// route opens streams through a forwarder, from away to home.
type route struct {
	p    *process
	open func() (away, home transport.Stream)
}

func relayRoute(b *testing.B) route {
	p := serve(b, "measured", "--admit", "open", "--log-level", "error")
	d := newDialer(b)
	a, name := register(b, d, p.relay(b), transporttest.Certificate(b))
	device := attach(b, newDialer(b), p.relay(b), name)
	return route{p, func() (away, home transport.Stream) {
		away, err := device.Open(b.Context())
		if err == nil {
			home, err = a.Accept(b.Context())
		}
		if err == nil {
			_, err = hop.ReadIncoming(home)
		}
		if err != nil {
			b.Fatal(err)
		}
		return away, home
	}}
}

func bareRoute(b *testing.B) route {
	p := start(b, command(b, "bare", b.TempDir()+"/state"))
	cert := transporttest.Certificate(b)
	var sessions [2]transport.Session
	for i, as := range []*tls.Certificate{&cert, nil} { // only an agent accepts streams
		var err error
		if sessions[i], err = newDialer(b).DialQUIC(b.Context(), p.relay(b), as); err != nil {
			b.Fatal(err)
		}
	}
	return route{p, func() (away, home transport.Stream) {
		away, err := sessions[1].OpenStream(b.Context())
		if err == nil {
			_, err = away.Write([]byte{0}) // a stream is known to the other end with its first byte
		}
		if err == nil {
			home, err = sessions[0].AcceptStream(b.Context())
		}
		if err == nil {
			_, err = home.Read(make([]byte, 1))
		}
		if err != nil {
			b.Fatal(err)
		}
		return away, home
	}}
}

// download moves total bytes in some streams from home to away. It returns
// bytes per second, and the forwarder's CPU seconds per GiB.
func (r route) download(b *testing.B, streams int, total int64) (rate, cpu float64) {
	b.Helper()
	before, begin := r.p.usage(b, false), time.Now()
	var wait sync.WaitGroup
	for range streams {
		away, home := r.open()
		wait.Go(func() {
			chunk := make([]byte, 64<<10)
			for range total / int64(streams) / int64(len(chunk)) {
				if _, err := home.Write(chunk); err != nil {
					b.Error(err)
					return
				}
			}
			home.CloseWrite()
		})
		wait.Go(func() {
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{away}, make([]byte, 64<<10))
			if err != nil || n != total/int64(streams) {
				b.Errorf("%d bytes and %v arrived", n, err)
			}
			away.CloseWrite()
		})
	}
	wait.Wait()
	took := time.Since(begin).Seconds()
	after := r.p.usage(b, false)
	return float64(total) / took, (after.CPU - before.CPU) / (float64(total) / (1 << 30))
}

// BenchmarkForward measures the relay against a bare io.CopyBuffer between the
// two QUIC streams: the same process layout (a forwarder, and one process with
// both endpoints), the same run, in turns. It reports the medians of the
// ratios of pairs, and their spread.
//
//	go test ./cmd/blindrelay -run '^$' -bench Forward -benchtime 7x
func BenchmarkForward(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			const total = 256 << 20
			relay, bare := relayRoute(b), bareRoute(b)
			relay.download(b, streams, total/4)
			bare.download(b, streams, total/4)
			var rates, cpus, ratioRates, ratioCPUs []float64
			b.SetBytes(total)
			for i := 0; b.Loop(); i++ {
				var r [2]float64
				var c [2]float64
				for _, k := range rand.Perm(2) { // who goes first must not matter
					r[k], c[k] = []route{relay, bare}[k].download(b, streams, total)
				}
				rates, cpus = append(rates, r[0]), append(cpus, c[0])
				ratioRates, ratioCPUs = append(ratioRates, r[0]/r[1]), append(ratioCPUs, c[0]/c[1])
			}
			report := func(values []float64, unit string) {
				slices.Sort(values)
				b.ReportMetric(values[len(values)/2], unit)
				b.Logf("%s: %.3g of %d pairs, from %.3g to %.3g", unit, values[len(values)/2], len(values), values[0], values[len(values)-1])
			}
			report(rates, "B/s")
			report(cpus, "CPU-s/GiB")
			report(ratioRates, "throughput-ratio")
			report(ratioCPUs, "CPU-ratio")
		})
	}
}

// BenchmarkIdleAgents measures the resident memory of the relay per idle
// agent: 2,000 of them, after keep-alives have passed for a while. It also
// says where the memory is, by who allocated it. With the stacks of goroutines
// left as they are, they do not shrink in each collection of garbage and grow
// again with each keep-alive.
//
//	go test ./cmd/blindrelay -run '^$' -bench IdleAgents -benchtime 1x -v
func BenchmarkIdleAgents(b *testing.B) {
	for _, setting := range []string{"GODEBUG=", "GODEBUG=gcshrinkstackoff=1"} {
		b.Run(setting, func(b *testing.B) { idleAgents(b, setting) })
	}
}

func idleAgents(b *testing.B, setting string) {
	const agents = 2000
	perAgent := func(bytes int64) float64 { return float64(bytes) / agents / 1024 }
	for b.Loop() {
		p := serve(b, "measured "+setting, "--admit", "open", "--log-level", "error")
		before, empty := p.usage(b, true), p.resident(b)
		d := newDialer(b)
		for range agents {
			register(b, d, p.relay(b), transporttest.Certificate(b))
		}
		time.Sleep(giveBackEvery) // the handshakes' garbage is not an idle agent's
		var samples []int64
		cpu := p.usage(b, false).CPU
		for range 2 * giveBackEvery / time.Second {
			time.Sleep(time.Second)
			samples = append(samples, p.resident(b)-empty)
		}
		idle := p.usage(b, false)
		slices.Sort(samples)
		most, least := samples[len(samples)-1], samples[0]
		b.ReportMetric(perAgent(most), "KiB/agent")
		b.ReportMetric((idle.CPU-cpu)/(2*giveBackEvery).Seconds()/agents*1e6, "CPU-us/s/agent")
		b.Logf("resident memory of %d agents over %v: %.1f to %.1f KiB each, besides %d MiB of the empty relay", agents, 2*giveBackEvery, perAgent(least), perAgent(most), empty>>20)
		swept := p.usage(b, true)
		line := func(name string, bytes int64) { b.Logf("  %-24s %6.1f KiB/agent", name, perAgent(bytes)) }
		line("heap in use", swept.Heap-before.Heap)
		for _, area := range slices.Sorted(maps.Keys(swept.Areas)) {
			line("  of "+area, swept.Areas[area]-before.Areas[area])
		}
		line("garbage", idle.Heap-swept.Heap)
		line("free, not given back", idle.Free-before.Free)
		line("stacks of goroutines", idle.Stacks-before.Stacks)
		line("the runtime's own", idle.Other-before.Other)
	}
}
