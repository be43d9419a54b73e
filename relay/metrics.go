package relay

import (
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	roleAgent  = "agent"
	roleDevice = "device"
)

// metrics count what happens. No label carries an address, a route or a key,
// and every value of a label exists from the start.
type metrics struct {
	sessions       map[string]prometheus.Gauge // by role
	sessionsEnded  counters
	handshakes     counters
	streams        prometheus.Gauge
	streamsOpened  prometheus.Counter
	streamsRefused counters
	streamsEnded   counters

	limitsTold counters
	egressWait prometheus.Histogram

	receiptsGiven, receiptsTaken, receiptsRefused prometheus.Counter

	measuredUp, measuredDown measured
	measurementsRefused      counters

	bytesUp   atomic.Int64
	bytesDown atomic.Int64
	all       []prometheus.Collector
}

// measured counts the measurements of one direction.
type measured struct{ done, bytes prometheus.Counter }

// counters is one counter for each code.
type counters struct {
	by    map[wire.Code]prometheus.Counter
	other prometheus.Counter // an endpoint may say any number
}

func (c counters) of(code wire.Code) prometheus.Counter {
	if m, ok := c.by[code]; ok {
		return m
	}
	return c.other
}

func newMetrics() *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	byCode := func(name, help string, codes ...wire.Code) counters {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"code"})
		m.all = append(m.all, v)
		c := counters{by: make(map[wire.Code]prometheus.Counter), other: v.WithLabelValues("other")}
		for _, code := range codes {
			c.by[code] = v.WithLabelValues(code.String())
		}
		return c
	}
	sessions := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "blindrelay_sessions", Help: "Connections of endpoints, by role.",
	}, []string{"role"})
	m.sessions = map[string]prometheus.Gauge{roleAgent: sessions.WithLabelValues(roleAgent), roleDevice: sessions.WithLabelValues(roleDevice)}
	m.streams = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "blindrelay_streams", Help: "Streams that are forwarded now.",
	})
	bytes := func(direction string, count *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blindrelay_forwarded_bytes_total", Help: "Sealed bytes forwarded, by direction: up is device to agent.",
			ConstLabels: prometheus.Labels{"direction": direction},
		}, func() float64 { return float64(count.Load()) })
	}
	m.all = append(m.all, sessions, m.streams, bytes("up", &m.bytesUp), bytes("down", &m.bytesDown))

	m.sessionsEnded = byCode("blindrelay_sessions_ended_total", "Connections of endpoints that ended, by code.", wire.Codes()...)
	m.handshakes = byCode("blindrelay_handshakes_failed_total", "Connection attempts that came to nothing, by code: version is another protocol (ALPN), handshake_limit those that were not let begin, silent anything else.",
		wire.CodeVersion, wire.CodeHandshakeLimit, wire.CodeSilent)
	m.streamsOpened = counter("blindrelay_streams_opened_total", "Streams that were joined to an agent.")
	m.streamsRefused = byCode("blindrelay_streams_refused_total", "Streams that were not joined to an agent, by code.", wire.Codes()...)
	m.limitsTold = byCode("blindrelay_limits_told_total", "Times that an endpoint was told of a limit, by code.",
		wire.CodeMemory, wire.CodeDeviceLimit, wire.CodeStreamLimit, wire.CodeVolumeLimit, wire.CodeRouteRate, wire.CodeDeviceRate, wire.CodeEgressRate, wire.CodeRelayStreams)
	receipts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blindrelay_receipts_total", Help: "Receipts for the volume of a route: given to its agent, shown by it and taken, or refused.",
	}, []string{"result"})
	m.receiptsGiven, m.receiptsTaken, m.receiptsRefused = receipts.WithLabelValues("given"), receipts.WithLabelValues("taken"), receipts.WithLabelValues("refused")
	m.egressWait = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "blindrelay_share_wait_seconds", Help: "Time that up to 16 KiB of a stream waited for their turn, of those that did: egress rate, rates of routes and devices.",
		NativeHistogramBucketFactor: 1.2, NativeHistogramMaxBucketNumber: 80,
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3},
	})
	m.all = append(m.all, receipts, m.egressWait)
	byDirection := func(name, help string) (up, down prometheus.Counter) {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"direction"})
		m.all = append(m.all, v)
		return v.WithLabelValues("up"), v.WithLabelValues("down")
	}
	m.measuredUp.done, m.measuredDown.done = byDirection("blindrelay_measurements_total", "Measurements that endpoints have made, by direction: up is to the relay.")
	m.measuredUp.bytes, m.measuredDown.bytes = byDirection("blindrelay_measured_bytes_total", "Bytes of measurements, by direction: up is to the relay.")
	m.measurementsRefused = byCode("blindrelay_measurements_refused_total", "Measurements that were not made, by code.",
		wire.CodeRouteUnknown, wire.CodeTokenRefused, wire.CodeMemory, wire.CodeMeasureLimit, wire.CodeVolumeLimit)
	m.streamsEnded = byCode("blindrelay_streams_ended_total", "Forwarded streams that ended, by code; none is an orderly end.", wire.Codes()...)
	return m
}

// waited counts how long bytes have waited for their share of the line.
func (m *metrics) waited(d time.Duration) { m.egressWait.Observe(d.Seconds()) }

// collectors adds what is read when it is asked for.
func (m *metrics) collectors(r *Relay) []prometheus.Collector {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	packets := func(direction string, f func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blindrelay_packets_total", Help: "Datagrams of sessions, by direction.",
			ConstLabels: prometheus.Labels{"direction": direction},
		}, func() float64 { return float64(f()) })
	}
	carrier := func(protocol, label string) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blindrelay_carriers", Help: "Connections of endpoints, by what carries them.",
			ConstLabels: prometheus.Labels{"carrier": label},
		}, func() float64 { return float64(r.carriedBy(protocol)) })
	}
	return append(m.all[:len(m.all):len(m.all)],
		carrier("QUIC", "quic"), carrier("TCP", "tcp"),
		packets("out", func() uint64 { out, _ := r.packets(); return out }),
		packets("in", func() uint64 { _, in := r.packets(); return in }),
		gauge("blindrelay_draining", "1 while the relay is being emptied, else 0.", func() float64 {
			if r.drainSpread() > 0 {
				return 1
			}
			return 0
		}),
		gauge("blindrelay_agents", "Routes that are registered.", func() float64 { return float64(r.registry.size()) }),
		gauge("blindrelay_egress_limit_bytes_per_second", "What the relay forwards at most, all together; 0 is no limit.", func() float64 { return float64(r.registry.bounds().Egress) / 8 }),
		gauge("blindrelay_share_waiting_streams", "Directions of streams that wait for their turn.", func() float64 { return float64(r.line.Stats().Waiting) }),
		gauge("blindrelay_share_waiting_bytes", "Bytes that they ask for.", func() float64 { return float64(r.line.Stats().Bytes) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blindrelay_volume_bytes_total", Help: "Bytes that were counted against volumes of routes.",
		}, func() float64 { return r.registry.volumeSpent() }),
		gauge("blindrelay_buffer_memory_bytes", "Memory that jitter buffers and receive windows may take.", func() float64 { return float64(r.budget.Stats().Total) }),
		gauge("blindrelay_buffer_reserved_bytes", "Memory promised to streams: floors and receive windows.", func() float64 { return float64(r.budget.Stats().Reserved) }),
		gauge("blindrelay_buffer_used_bytes", "Memory that jitter buffers hold now.", func() float64 { return float64(r.budget.Stats().Used) }),
		gauge("blindrelay_buffer_share_bytes", "How far one direction of one stream may fill now.", func() float64 { return float64(r.budget.Stats().Share) }),
	)
}
