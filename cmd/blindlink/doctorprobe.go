package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// What the probes of an examination take at most.
const (
	resolveTime = 3 * time.Second
	dialTime    = 5 * time.Second
	checkTime   = 2 * time.Second
	gaugeTime   = 2500 * time.Millisecond // one of the two passes of a direction
	firstGauge  = 256 << 10               // bytes of the first pass
	lastGauge   = 8 << 20                 // bytes of the second pass, at most
	maxExamined = 4                       // addresses of relays, of one side
)

// relayReport is what was found of one address of a relay.
type relayReport struct {
	Relay   string        `json:"relay"`             // host:port
	Address string        `json:"address,omitempty"` // the IP address, where the host is a name
	UDP     carrierReport `json:"udp"`
	TCP     carrierReport `json:"tcp"`
	Packets *pathReport   `json:"full_packets,omitempty"`   // whether UDP packets of an MTU of 1500 get there
	Moves   *pathReport   `json:"address_change,omitempty"` // whether a QUIC connection goes on from another port
	Up      *lineReport   `json:"up,omitempty"`             // from here to the relay
	Down    *lineReport   `json:"down,omitempty"`           // from the relay to here

	attachment *hop.Attachment // nil: not reached
}

// carrierReport says whether a carrier leads to the relay.
type carrierReport struct {
	OK    bool          `json:"ok"`
	RTT   time.Duration `json:"rtt_ns,omitempty"`
	Error string        `json:"error,omitempty"`
}

// pathReport says whether UDP's path to the relay does what it should.
type pathReport struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"` // what comes of it
}

// lineReport is the measure of one direction.
type lineReport struct {
	Rate  float64 `json:"bits_per_second"`
	Error string  `json:"error,omitempty"` // why there is none
}

// reach finds the addresses of the side's relays and tries each over UDP and
// over TCP.
func (s *side) reach(ctx context.Context, dialer *transport.Dialer) {
	lookup, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var all []fleet.Relay
	for _, r := range s.known {
		found, err := fleet.Resolve(lookup, net.DefaultResolver, r)
		if err != nil {
			s.Lookup = err.Error()
		}
		all = append(all, found...)
	}
	all = fleet.Order(s.to.Route, all)
	if len(all) > maxExamined {
		all, s.More = all[:maxExamined], len(all)-maxExamined
	}
	s.Relays = make([]relayReport, len(all))
	var wait sync.WaitGroup
	for i, r := range all {
		wait.Go(func() { s.Relays[i] = probe(ctx, dialer, r, s.to) })
	}
	wait.Wait()
}

// probe tries a relay, and attaches over UDP, or over TCP if UDP does not lead
// there.
func probe(ctx context.Context, dialer *transport.Dialer, r fleet.Relay, to wire.Open) relayReport {
	report := relayReport{Relay: r.Addr}
	if host, _, err := net.SplitHostPort(r.Addr); err == nil && host != r.IP.String() {
		report.Address = r.IP.String()
	}
	var quic, tcp transport.Session
	var wait sync.WaitGroup
	wait.Go(func() { quic, report.UDP = try(ctx, dialer.DialQUIC, r.Relay) })
	wait.Go(func() { tcp, report.TCP = try(ctx, dialer.DialTCP, r.Relay) })
	wait.Wait()
	if quic != nil {
		wait.Go(func() { report.Packets = fullPackets(ctx, r.Relay) })
		wait.Go(func() { report.Moves = moves(ctx, quic) })
		wait.Wait()
	}
	best, carrier := quic, &report.UDP
	switch {
	case quic == nil && tcp != nil:
		best, carrier = tcp, &report.TCP
		report.UDP.Error += "; TCP does what UDP would, worse where packets get lost"
	case tcp != nil:
		tcp.Close(wire.CodeNone, "")
	}
	if best == nil {
		return report
	}
	var err error
	if report.attachment, err = hop.Attach(ctx, best, to); err != nil {
		*carrier = carrierReport{Error: reason(err)}
	}
	return report
}

// try dials and demands an answer.
func try(ctx context.Context, dial func(context.Context, wire.Relay, *tls.Certificate) (transport.Session, error), r wire.Relay) (transport.Session, carrierReport) {
	dialing, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	sess, err := dial(dialing, r, nil)
	if errors.Is(err, context.DeadlineExceeded) { // the dialer has said what that means
		return nil, carrierReport{Error: err.Error()}
	}
	if err != nil {
		return nil, carrierReport{Error: reason(err)}
	}
	checking, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if err := sess.Check(checking); err != nil {
		sess.Close(wire.CodeNone, "")
		return nil, carrierReport{Error: reason(err)}
	}
	return sess, carrierReport{OK: true, RTT: sess.RTT()}
}

// fullPackets tries whether packets reach the relay that fill an MTU of 1500. It
// sends its first ones in that size, and they cannot be split on the way.
func fullPackets(ctx context.Context, r wire.Relay) *pathReport {
	dialer, err := transport.DialerConfig{PacketSize: transport.MaxPacketSize}.NewDialer()
	if err != nil {
		return &pathReport{Error: reason(err)}
	}
	defer dialer.Close()
	sess, c := try(ctx, dialer.DialQUIC, r)
	if sess == nil {
		return &pathReport{Error: fmt.Sprintf("packets of %d bytes of UDP do not get there, so smaller ones are used, which costs a little; a tunnel on the way (VPN, PPPoE) makes the MTU smaller. %s",
			transport.MaxPacketSize, c.Error)}
	}
	sess.Close(wire.CodeNone, "")
	return &pathReport{OK: true}
}

// moves tries whether a connection goes on when this machine's address changes:
// from another port, as it looks behind a NAT.
func moves(ctx context.Context, sess transport.Session) *pathReport {
	moving, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := sess.Migrate(moving)
	if err == nil {
		err = sess.Check(moving)
	}
	if err != nil {
		return &pathReport{Error: "a connection does not go on from another port, so streams pause for 2 to 3 s when the network changes: " + reason(err)}
	}
	return &pathReport{OK: true}
}

// reason writes an error with what to do about it.
func reason(err error) string {
	text := endpoint.Explain(err).Error()
	if strings.Contains(text, "expired or is not yet valid") { // x509.Expired
		text += fmt.Sprintf("; this machine's clock says %s: is that right?", time.Now().UTC().Format(time.RFC3339))
	}
	return text
}

// measure measures the line to every relay that was reached, and leaves them.
func (s *side) measure(ctx context.Context) {
	for i := range s.Relays {
		r := &s.Relays[i]
		if r.attachment == nil {
			continue
		}
		if s.token && s.Blocked == "" {
			r.Up = gauge(ctx, r.attachment, true)
			r.Down = gauge(ctx, r.attachment, false)
		}
		r.attachment.Close(wire.CodeNone, "")
	}
}

// meter is a *hop.Attachment.
type meter interface {
	Measure(ctx context.Context, up bool, bytes int) (perSecond float64, err error)
}

// gauge measures one direction: a little, to know how much fits into a second,
// then that.
func gauge(ctx context.Context, m meter, up bool) *lineReport {
	if ctx.Err() != nil {
		return &lineReport{Error: "not measured, there was no time left"}
	}
	first, err := pass(ctx, m, up, firstGauge)
	if errors.Is(err, context.DeadlineExceeded) {
		least := firstGauge * 8 / gaugeTime.Seconds()
		return &lineReport{Error: "less than " + rate(least) + " pass"}
	}
	if err != nil {
		return &lineReport{Error: reason(err)}
	}
	second, err := pass(ctx, m, up, min(max(int(min(first, lastGauge)), firstGauge), lastGauge))
	if err != nil {
		second = first
	}
	return &lineReport{Rate: 8 * second}
}

// pass measures once. The relay ends a measurement a moment after this end has
// its result, and refuses another one until then.
func pass(ctx context.Context, m meter, up bool, bytes int) (perSecond float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, gaugeTime)
	defer cancel()
	const tries, pause = 10, 50 * time.Millisecond
	for range tries {
		perSecond, err = m.Measure(ctx, up, bytes)
		if reset, ok := errors.AsType[*wire.ResetError](err); !ok || reset.Code != wire.CodeMeasureLimit {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return perSecond, err
}
