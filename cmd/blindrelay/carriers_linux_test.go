package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// BenchmarkCarriers moves bytes through a relay to which both ends have come by
// QUIC, and by TCP. All run on this machine, so the figures say what the carriers
// cost in CPU, not what paths do to them.
func BenchmarkCarriers(b *testing.B) {
	const total = 256 << 20
	for _, c := range []struct {
		name string
		dial func(*transport.Dialer, context.Context, wire.Relay, *tls.Certificate) (transport.Session, error)
	}{
		{"QUIC", (*transport.Dialer).DialQUIC},
		{"TCP", (*transport.Dialer).DialTCP},
	} {
		for _, streams := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", c.name, streams), func(b *testing.B) {
				p := serve(b, "measured", "--admit", "open", "--log-level", "error")
				cert := transporttest.Certificate(b)
				home, err := c.dial(newDialer(b), b.Context(), p.relay(b), &cert)
				if err != nil {
					b.Fatal(err)
				}
				a, err := hop.Register(b.Context(), home, wire.Register{Tokens: []wire.TokenHash{token.Hash()}})
				if err != nil {
					b.Fatal(err)
				}
				away, err := c.dial(newDialer(b), b.Context(), p.relay(b), nil)
				if err != nil {
					b.Fatal(err)
				}
				device, err := hop.Attach(b.Context(), away, wire.Open{Route: wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo), Token: token})
				if err != nil {
					b.Fatal(err)
				}
				r := route{p, func() (away, home transport.Stream) {
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
				b.SetBytes(total)
				var cpu float64
				for b.Loop() {
					_, c := r.download(b, streams, total)
					cpu += c
				}
				b.ReportMetric(cpu/float64(b.N), "relay-cpu-s/GiB")
				a.Close(wire.CodeNone, "")
				device.Close(wire.CodeNone, "")
			})
		}
	}
}
