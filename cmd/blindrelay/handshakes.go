package main

import (
	"github.com/blindrelay/blindrelay/transport"
	"github.com/prometheus/client_golang/prometheus"
)

// handshakeLimits are the settings that bound handshakes.
type handshakeLimits struct {
	MaxHandshakes           int `default:"1024" placeholder:"N" help:"How many handshakes of new connections may be under way; -1 is no limit. One network, IPv4 /24 or IPv6 /48, may have a quarter of them. Default ${default}."`
	MaxHandshakesPerAddress int `default:"64" placeholder:"N" help:"How many of them may come from one address, IPv4 /32 or IPv6 /56; -1 is no limit. Those of this machine's loopback are not counted. Default ${default}."`
	HandshakeRate           int `default:"500" placeholder:"N" help:"How many handshakes may begin each second, and four times that at once after a rest; -1 is no limit. One network may have a quarter of them. Default ${default}."`
	HandshakeRatePerAddress int `default:"20" placeholder:"N" help:"How many of them may come from one address, and eight times that at once after a rest; -1 is no limit. Default ${default}."`
}

func (l handshakeLimits) check() error {
	return checkCounts([]count{
		{"max-handshakes", l.MaxHandshakes},
		{"max-handshakes-per-address", l.MaxHandshakesPerAddress},
		{"handshake-rate", l.HandshakeRate},
		{"handshake-rate-per-address", l.HandshakeRatePerAddress},
	})
}

// count returns what the listeners of a relay share.
func (l handshakeLimits) count() *transport.Handshakes {
	return transport.NewHandshakes(transport.HandshakeLimits{
		Max: l.MaxHandshakes, MaxPerAddress: l.MaxHandshakesPerAddress,
		Rate: l.HandshakeRate, RatePerAddress: l.HandshakeRatePerAddress,
	})
}

// handshakeCollectors are the metrics of handshakes that have not failed.
func handshakeCollectors(h *transport.Handshakes) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blindrelay_handshakes", Help: "Handshakes of new connections that are under way.",
		}, func() float64 { return float64(h.UnderWay()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blindrelay_retries_total", Help: "Packets of new connections whose sender had to show first that it receives at its address (QUIC Retry).",
		}, func() float64 { return float64(h.Retries()) }),
	}
}
