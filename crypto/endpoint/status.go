package endpoint

import (
	"context"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// RelayStatus says how one connection to a relay is.
type RelayStatus struct {
	Relay string        `json:"relay"` // host:port, or host:port#pin
	State string        `json:"state"` // "reachable", "connecting" or "off"
	Since time.Time     `json:"since"`
	RTT   time.Duration `json:"rtt_ns"`          // round trip to the relay; 0 if unknown
	Error string        `json:"error,omitempty"` // why it is not reachable
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
	for _, l := range a.links {
		s.Relays = append(s.Relays, l.status())
	}
	names := make(map[e2e.Pin]string)
	for _, d := range a.home.Devices() {
		names[d.Pin] = d.Name
	}
	for _, i := range a.server.Sessions() {
		s.Sessions = append(s.Sessions, SessionStatus{
			Device: names[i.Device], Since: i.Since, Streams: i.Streams, BytesIn: i.BytesIn, BytesOut: i.BytesOut,
		})
	}
	return s
}

func (l *link) status() RelayStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := RelayStatus{Relay: l.relay.String(), State: l.state, Since: l.since}
	if l.reg != nil {
		s.RTT = l.reg.RTT()
	}
	if l.err != nil {
		s.Error = l.err.Error()
	}
	return s
}

// Ready waits until a relay has the route, or until every relay has failed
// once; the error then says why. The agent goes on trying.
func (a *Agent) Ready(ctx context.Context) error {
	for {
		moved := a.moved.next()
		var failure error
		failed := 0
		for _, l := range a.links {
			l.mu.Lock()
			state, err := l.state, l.err
			l.mu.Unlock()
			switch {
			case state == stateReachable:
				return nil
			case state == stateOff:
				return errOff
			case err != nil:
				failed++
				failure = err
			}
		}
		if failed == len(a.links) {
			return failure
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
}

// Status returns a snapshot.
func (d *Dialer) Status() DialerStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := DialerStatus{Server: d.server.Name, RelayStatus: RelayStatus{State: d.state, Since: d.since}}
	if d.path != nil {
		s.Relay, s.RTT = d.path.relay.String(), d.path.attachment.RTT()
	}
	if d.failure != nil {
		s.Error = d.failure.Error()
	}
	return s
}
