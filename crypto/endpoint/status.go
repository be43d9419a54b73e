package endpoint

import (
	"context"
	"net"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// RelayStatus says how the way to one relay is.
type RelayStatus struct {
	Relay string `json:"relay"` // host:port[/tcpport][#pin]
	// Address is the IP address in use, where the host is a name.
	Address string `json:"address,omitempty"`
	// State is "reachable", "connecting", "off", or of an agent also "leaving"
	// (the relay is being emptied) and "standby" (enough others work).
	State       string        `json:"state"`
	Since       time.Time     `json:"since"`
	Protocol    string        `json:"protocol,omitempty"`    // "QUIC", "TCP", or both while one replaces the other
	Connections int           `json:"connections,omitempty"` // of an agent: as many as its devices need
	RTT         time.Duration `json:"rtt_ns"`                // round trip to the relay; 0 if unknown
	Until       time.Time     `json:"ticket_until,omitzero"` // of an agent: when the ticket for the relay ends
	Error       string        `json:"error,omitempty"`       // why it is not reachable, or not better
	Limits      []LimitStatus `json:"limits,omitempty"`      // what the relay has said of them
}

// SessionStatus describes a device that is connected now.
type SessionStatus struct {
	Device   string    `json:"device"` // its name on the owner's list
	Since    time.Time `json:"since"`
	Streams  int       `json:"streams"`
	BytesIn  int64     `json:"bytes_in"`  // content from the device
	BytesOut int64     `json:"bytes_out"` // content to the device
}

// AgentStatus is a snapshot of an Agent.
type AgentStatus struct {
	Relays   []RelayStatus   `json:"relays"`
	Sessions []SessionStatus `json:"sessions"`
}

// Status returns a snapshot.
func (a *Agent) Status() AgentStatus {
	s := AgentStatus{Sessions: []SessionStatus{}}
	s.Relays = a.roster.status()
	names := a.names()
	for _, i := range a.server.Sessions() {
		s.Sessions = append(s.Sessions, SessionStatus{
			Device: names[i.Device], Since: i.Since, Streams: i.Streams, BytesIn: i.BytesIn, BytesOut: i.BytesOut,
		})
	}
	return s
}

// status describes every relay that the agent is registered at, or should be,
// or has failed at, the best one first, and the configured ones behind which no
// such relay is.
func (r *roster) status() []RelayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []RelayStatus
	shown := make(map[wire.Relay]bool)
	for _, p := range r.places {
		if len(p.links) > 0 || p.listed && (p.wanted || p.err != nil) {
			all = append(all, p.status())
			for _, a := range p.addresses {
				shown[a.Configured] = true
			}
		}
	}
	for _, c := range r.agent.relays {
		if shown[c] {
			continue
		}
		s := RelayStatus{Relay: c.String(), State: stateStandby, Since: r.began}
		if err := r.set.Failure(c); err != nil {
			s.State, s.Error = stateConnecting, err.Error()
		}
		all = append(all, s)
	}
	return all
}

func (p *place) status() RelayStatus {
	s := RelayStatus{Relay: p.id, State: p.state, Since: p.since, Connections: len(p.links)}
	if len(p.addresses) > 0 {
		a := p.address()
		s.Relay = a.Relay.String()
		if host, _, err := net.SplitHostPort(a.Addr); err == nil && host != a.IP.String() {
			s.Address = a.IP.String()
		}
	}
	var limits [][]hop.Limit
	for i, l := range p.links {
		limits = append(limits, l.reg.Limits())
		if protocol := l.sess.Protocol(); i == 0 {
			s.Protocol = protocol
		} else if protocol != s.Protocol {
			s.Protocol = "QUIC, TCP"
		}
		s.RTT, s.Until = l.reg.RTT(), l.reg.Until() // of the latest
	}
	s.Limits = limitStatus(time.Now(), limits...)
	if p.err != nil {
		s.Error = p.err.Error()
	}
	return s
}

// Ready waits until a relay has the route, or until every relay has failed
// once; the error then says why. The agent goes on trying.
func (a *Agent) Ready(ctx context.Context) error {
	for {
		moved := a.roster.moved.next()
		if ready, err := a.roster.verdict(); ready || err != nil {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-a.ctx.Done():
			return context.Canceled
		}
	}
}

// DialerStatus is a snapshot of a Dialer.
type DialerStatus struct {
	Server string `json:"server"`
	RelayStatus
	// Carriers are the connections to the relay: one, and as many beside it as
	// make large streams faster.
	Carriers []CarrierStatus `json:"carriers,omitempty"`
}

// CarrierStatus is what a relay connection of a device brings.
type CarrierStatus struct {
	Protocol string        `json:"protocol"` // "QUIC" or "TCP"
	RTT      time.Duration `json:"rtt_ns"`   // round trip to the relay
	BytesIn  int64         `json:"bytes_in"` // of sealed records, since it was made
	BytesOut int64         `json:"bytes_out"`
}

// Status returns a snapshot.
func (d *Dialer) Status() DialerStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DialerStatus{Server: d.server.Name, RelayStatus: RelayStatus{State: d.state, Since: d.since}}
	if d.path != nil {
		s.Relay, s.RTT, s.Protocol = d.path.relay.String(), d.path.attachment.RTT(), d.path.hop.Protocol()
		if ip := d.path.relay.IP; ip.IsValid() {
			s.Address = ip.String()
		}
		if s.Protocol == protocolTCP {
			if s.Error = d.whyTCP; s.Error == "" {
				s.Error = "UDP does not get through to the relay here, so streams go over TCP; QUIC is tried again every three minutes"
			}
		}
		var limits [][]hop.Limit
		for _, p := range append([]*path{d.path}, d.further...) {
			limits = append(limits, p.attachment.Limits())
			c := CarrierStatus{Protocol: p.hop.Protocol(), RTT: p.attachment.RTT()}
			if p.link != nil {
				c.BytesIn, c.BytesOut = p.link.Traffic()
			}
			s.Carriers = append(s.Carriers, c)
		}
		s.Limits = limitStatus(time.Now(), limits...)
	}
	if d.failure != nil {
		s.Error = d.failure.Error()
	}
	return s
}
