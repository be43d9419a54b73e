package endpoint

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestTwoBest registers at the first two of three relays, and nowhere else.
func TestTwoBest(t *testing.T) {
	underSky(t, 3, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, nil)
		defer end()
		if err := a.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		relays := s.ordered(a)
		s.expect(time.Second, "at the start", relays, 1, 1, 0)
		time.Sleep(10 * time.Minute)
		s.expect(0, "ten minutes later", relays, 1, 1, 0)
		if relays[2].asked() != 0 {
			t.Error("the third relay was asked")
		}
		for _, r := range relays[:2] {
			r.each(func(g *registered) {
				if g.instance != a.roster.instance {
					t.Error("another instance is registered")
				}
			})
		}
		if w, err := a.home.Relays(), a.Publish(t.Context()); len(w) != 3 || err != nil {
			t.Errorf("the home knows %v, publish says %v", w, err)
		}
		status := a.Status().Relays
		var states []string
		for _, r := range status {
			states = append(states, r.State)
		}
		if got := strings.Join(states, " "); got != "reachable reachable standby" {
			t.Errorf("the states are %s", got)
		}
		if r := status[0]; r.Relay != relays[0].at().String() || r.Protocol != "QUIC" || r.Connections != 1 || r.RTT != 2*oneWay || r.Address != "" {
			t.Errorf("the best relay is %+v", r)
		}
		if err := a.home.SetEnabled(false); err != nil {
			t.Fatal(err)
		}
		s.expect(time.Second, "while remote access is off", relays, 0, 0, 0)
		if r := a.Status().Relays[0]; r.State != stateOff {
			t.Errorf("the best relay is %+v", r)
		}
		if err := a.home.SetEnabled(true); err != nil {
			t.Fatal(err)
		}
		s.expect(time.Second, "when it is on again", relays, 1, 1, 0)
	})
}

// TestLoneRelay loses the only relay and finds it again.
func TestLoneRelay(t *testing.T) {
	underSky(t, 1, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, nil)
		defer end()
		s.expect(time.Second, "at the start", s.relays, 1)
		s.relays[0].kill()
		time.Sleep(7 * time.Minute)
		if r := a.Status().Relays[0]; r.State != stateConnecting || r.Error == "" {
			t.Errorf("the status is %+v", r)
		}
		s.relays[0].start()
		t.Logf("back after %v", s.expect(5*time.Second, "after the relay's return", s.relays, 1))
	})
}

// TestBestDies kills the best of three relays and brings it back. All the time
// the agent is registered at one, and soon at two.
func TestBestDies(t *testing.T) {
	for _, which := range []int{0, 1} {
		underSky(t, 3, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, nil)
			defer end()
			relays := s.ordered(a)
			s.expect(time.Second, "at the start", relays, 1, 1, 0)
			time.Sleep(time.Minute)
			relays[which].kill()
			after := []int{1, 1, 1}
			after[which] = 0
			t.Logf("relay %d: the third has the agent %v after", which, s.expect(5*time.Second, "after a death", relays, after...))
			s.always(5*time.Minute, 2)
			relays[which].start()
			t.Logf("back after %v", s.expect(leisure*longestWait+attemptPatience, "after the relay's return", relays, 1, 1, 1))
			s.always(settled-100*time.Millisecond, 3)
			s.expect(time.Second, "when it has worked for a while", relays, 1, 1, 0)
			time.Sleep(time.Hour)
			s.expect(0, "an hour later", relays, 1, 1, 0)
		})
	}
}

// TestSilent cuts the best relay off: it neither answers nor says goodbye.
func TestSilent(t *testing.T) {
	underSky(t, 3, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, nil)
		defer end()
		relays := s.ordered(a)
		s.expect(time.Second, "at the start", relays, 1, 1, 0)
		for _, idle := range []time.Duration{time.Minute, time.Minute + 700*time.Millisecond, time.Minute + 1700*time.Millisecond} {
			time.Sleep(idle)
			s.cables.set(relays[0].addr.IP, true)
			start := time.Now()
			for relays[2].count() == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			took := time.Since(start)
			t.Logf("elsewhere after %v", took)
			if took > 5*time.Second {
				t.Errorf("the agent is elsewhere %v after its relay went silent, want 5 s at most", took)
			}
			s.cables.set(relays[0].addr.IP, false)
			time.Sleep(2*time.Minute + relayForgets)
			s.expect(0, "after its return", relays, 1, 1, 0)
		}
	})
}

// relayForgets is after how long a relay gives a silent agent up.
const relayForgets = transport.RelayIdle

// TestDrain empties relays.
func TestDrain(t *testing.T) {
	const delay = 3 * time.Second
	t.Run("with a third", func(t *testing.T) {
		underSky(t, 3, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, holding)
			defer end()
			relays := s.ordered(a)
			s.expect(time.Second, "at the start", relays, 1, 1, 0)
			st := relays[0].bring(1)
			relays[0].drain(delay)
			s.always(delay-100*time.Millisecond, 2)
			s.expect(0, "before it is time", relays, 1, 1, 0)
			s.expect(time.Second, "after it", relays, 1, 1, 1)
			s.always(time.Minute, 3) // there is a stream
			if r := a.Status().Relays[0]; r.State != stateLeaving {
				t.Errorf("the status is %+v", r)
			}
			st.Reset(wire.CodeCancelled)
			s.expect(200*time.Millisecond, "after the stream", relays, 0, 1, 1)
			s.always(time.Minute, 2)
			relays[0].refuseWith(wire.CodeNone)
			s.expect(time.Minute, "when it takes agents again", relays, 1, 1, 1)
			time.Sleep(settled + time.Second)
			s.expect(0, "and has for a while", relays, 1, 1, 0)
		})
	})
	t.Run("without a stream", func(t *testing.T) {
		underSky(t, 3, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, nil)
			defer end()
			relays := s.ordered(a)
			s.expect(time.Second, "at the start", relays, 1, 1, 0)
			relays[1].drain(delay)
			s.always(delay+time.Minute, 2)
			s.expect(0, "a minute later", relays, 1, 0, 1)
		})
	})
	t.Run("two relays", func(t *testing.T) {
		underSky(t, 2, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, nil)
			defer end()
			relays := s.ordered(a)
			s.expect(time.Second, "at the start", relays, 1, 1)
			relays[0].drain(delay)
			s.expect(delay+time.Second, "when it was time", relays, 0, 1)
			s.always(10*time.Second, 1)
			relays[0].refuseWith(wire.CodeNone)
			s.expect(longestWait+time.Second, "when it takes agents again", relays, 1, 1)
		})
	})
	t.Run("all but a dead one", func(t *testing.T) {
		underSky(t, 2, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, holding)
			defer end()
			relays := s.ordered(a)
			s.expect(time.Second, "at the start", relays, 1, 1)
			relays[1].kill()
			time.Sleep(10 * time.Second)
			relays[0].drain(delay)
			s.always(time.Minute, 1) // there is nothing better
			relays[0].drop(wire.CodeShutdown)
			relays[0].refuseWith(wire.CodeNone)
			s.expect(longestWait+time.Second, "when it takes agents again", relays, 1, 0)
		})
	})
	t.Run("alone", func(t *testing.T) {
		underSky(t, 1, func(t *testing.T, s *sky) {
			a, end := s.agent(s.all(), nil, nil, holding)
			defer end()
			s.expect(time.Second, "at the start", s.relays, 1)
			s.relays[0].bring(1)
			s.relays[0].drain(delay)
			s.always(delay-100*time.Millisecond, 1)
			s.expect(time.Second, "when it was time", s.relays, 0)
			time.Sleep(20 * time.Second)
			if n := s.relays[0].asked(); n > 20 {
				t.Errorf("the relay was asked %d times in 20 s", n)
			}
			if r := a.Status().Relays[0]; r.State != stateConnecting || !strings.Contains(r.Error, "emptied") {
				t.Errorf("the status is %+v", r)
			}
			s.relays[0].refuseWith(wire.CodeNone)
			s.expect(longestWait+time.Second, "when it takes agents again", s.relays, 1)
		})
	})
}

// TestNoFlapping has the best relay end each connection after 5 s: the agent
// does not leave the third for it, nor ask it all the time.
func TestNoFlapping(t *testing.T) {
	underSky(t, 3, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, nil)
		defer end()
		relays := s.ordered(a)
		s.expect(time.Second, "at the start", relays, 1, 1, 0)
		for range 60 {
			time.Sleep(5 * time.Second)
			relays[0].drop(wire.CodeInternal)
		}
		if n := relays[2].asked(); n != 1 {
			t.Errorf("the agent went to the third relay %d times", n)
		}
		if n := relays[0].asked(); n > 70 {
			t.Errorf("the first relay was asked %d times in 5 min", n)
		}
		time.Sleep(settled + leisure*longestWait + time.Second)
		s.expect(0, "when it works again", relays, 1, 1, 0)
	})
}

// TestReplaced is another process with the same key: the agent does not follow
// it to other relays, and waits for long before it takes its place again.
func TestReplaced(t *testing.T) {
	underSky(t, 3, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, nil)
		defer end()
		relays := s.ordered(a)
		s.expect(time.Second, "at the start", relays, 1, 1, 0)
		time.Sleep(time.Minute)
		relays[0].drop(wire.CodeReplaced)
		relays[1].drop(wire.CodeReplaced)
		time.Sleep(replacedPause - time.Second)
		s.expect(0, "for five minutes", relays, 0, 0, 0)
		if relays[2].asked() != 0 {
			t.Error("the third relay was asked")
		}
		if err := a.Ready(t.Context()); err != nil && !strings.Contains(err.Error(), "same state directory") {
			t.Errorf("Ready says %v", err)
		}
		s.expect(15*time.Second, "then", relays, 1, 1, 0)
	})
}

// TestRefused passes over relays that do not admit the agent, and says so.
func TestRefused(t *testing.T) {
	underSky(t, 3, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, func(a *Agent) { s.ordered(a)[0].refuseWith(wire.CodeNotAdmitted) })
		defer end()
		relays := s.ordered(a)
		s.expect(time.Second, "at the start", relays, 0, 1, 1)
		if r := a.Status().Relays[0]; r.State != stateConnecting || !strings.Contains(r.Error, "--allow "+a.home.Route().String()) {
			t.Errorf("the status is %+v", r)
		}
		time.Sleep(time.Minute)
		if n := relays[0].asked(); n > 5 {
			t.Errorf("the relay was asked %d times in a minute", n)
		}
		relays[0].refuseWith(wire.CodeNone)
		time.Sleep(hopelessPause + leisure*longestWait + settled + time.Second)
		s.expect(0, "once it admits the agent", relays, 1, 1, 0)
	})
	underSky(t, 2, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, func(a *Agent) {
			s.ordered(a)[0].kill()
			s.ordered(a)[1].refuseWith(wire.CodeNotAdmitted)
		})
		defer end()
		if err := a.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "--allow") {
			t.Errorf("Ready says %v, want what somebody has to do", err)
		}
	})
}

// TestConnections opens connections as devices begin to stream.
func TestConnections(t *testing.T) {
	underSky(t, 1, func(t *testing.T, s *sky) {
		a, end := s.agent(s.all(), nil, nil, holding)
		defer end()
		r := s.relays[0]
		s.expect(time.Second, "at the start", s.relays, 1)
		var sessions, streams []transport.Stream
		for device := range uint64(6) {
			sessions = append(sessions, r.bring(device))
		}
		time.Sleep(time.Minute)
		s.expect(0, "while nobody streams", s.relays, 1)
		for device := range uint64(6) {
			streams = append(streams, r.bring(device), r.bring(device))
			time.Sleep(200 * time.Millisecond)
			s.expect(0, "while some stream", s.relays, min(int(device)+1, maxLinks))
		}
		for _, st := range streams {
			st.Reset(wire.CodeCancelled)
		}
		time.Sleep(slackAfter - time.Second)
		s.expect(0, "for a minute", s.relays, maxLinks)
		time.Sleep(time.Hour)
		s.expect(0, "an hour later", s.relays, 1)
		for _, st := range sessions {
			if _, err := st.Write([]byte("x")); err != nil {
				t.Errorf("a session lost its stream: %v", err)
			}
			st.Reset(wire.CodeCancelled)
		}
		time.Sleep(time.Second)
		a.roster.mu.Lock()
		defer a.roster.mu.Unlock()
		if p := a.roster.places[0]; len(p.traffic.devices) != 0 || p.traffic.streaming != 0 || p.links[0].streams != 0 {
			t.Errorf("streams are still counted: %+v", p.traffic)
		}
	})
}

// overTCP is a dialer whose first sessions say that they use TCP, while blocked.
type overTCP struct {
	dialer
	mu      sync.Mutex
	blocked bool
	quic    int // how often QUIC alone was tried
}

type tcpSession struct{ transport.Session }

func (tcpSession) Protocol() string { return "TCP" }

func (d *overTCP) Dial(ctx context.Context, r wire.Relay, c *tls.Certificate) (transport.Session, error) {
	sess, err := d.dialer.Dial(ctx, r, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && d.blocked {
		sess = tcpSession{sess}
	}
	return sess, err
}

func (d *overTCP) DialQUIC(ctx context.Context, r wire.Relay, c *tls.Certificate) (transport.Session, error) {
	d.mu.Lock()
	blocked := d.blocked
	d.quic++
	d.mu.Unlock()
	if blocked {
		return nil, context.DeadlineExceeded
	}
	return d.dialer.DialQUIC(ctx, r, c)
}

// TestBackToQUIC moves from TCP to QUIC once that is possible.
func TestBackToQUIC(t *testing.T) {
	underSky(t, 1, func(t *testing.T, s *sky) {
		d := &overTCP{blocked: true}
		a, end := s.agent(s.all(), nil, nil, func(a *Agent) {
			holding(a)
			d.dialer, a.roster.dialer = a.roster.dialer, d
		})
		defer end()
		r := s.relays[0]
		if err := a.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		protocol := func() string { return a.Status().Relays[0].Protocol }
		if protocol() != "TCP" {
			t.Errorf("the protocol is %s", protocol())
		}
		time.Sleep(30 * time.Minute)
		s.expect(0, "while UDP is blocked", s.relays, 1)
		d.mu.Lock()
		if d.quic < 9 || d.quic > 12 {
			t.Errorf("QUIC was tried %d times in 30 min", d.quic)
		}
		d.blocked = false
		d.mu.Unlock()
		st := r.bring(1)
		time.Sleep(quicEvery + time.Second)
		s.expect(0, "while a stream holds the old connection", s.relays, 2)
		if protocol() != "QUIC, TCP" {
			t.Errorf("the protocol is %s", protocol())
		}
		time.Sleep(3 * slackAfter)
		s.expect(0, "while a stream holds the old connection", s.relays, 2)
		st.Reset(wire.CodeCancelled)
		s.expect(time.Second, "after the stream", s.relays, 1)
		if protocol() != "QUIC" {
			t.Errorf("the protocol is %s", protocol())
		}
	})
}

// names answers for relays.example.
type names struct {
	mu  sync.Mutex
	srv []*net.SRV
	ips map[string][]netip.Addr
}

func (n *names) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.srv == nil {
		return "", nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	return "", slices.Clone(n.srv), nil
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ips := n.ips[host]; ips != nil {
		return slices.Clone(ips), nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

func (n *names) set(ips ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ips = map[string][]netip.Addr{"relays.example": ips}
}

func (r *fakeRelay) ip() netip.Addr { return netip.AddrFrom4([4]byte(r.addr.IP)) }

// TestName registers at the two best relays behind a name, and follows it.
func TestName(t *testing.T) {
	underSky(t, 6, func(t *testing.T, s *sky) {
		for _, r := range s.relays { // a fleet with one key
			r.kill()
			r.cert = s.relays[0].cert
			r.start()
		}
		at := s.relays[0].at()
		at.Addr = "relays.example:4433"
		n := &names{}
		a, end := s.agent([]wire.Relay{at}, n, nil, nil)
		defer end()
		if err := a.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "relays.example") {
			t.Errorf("Ready says %v while the name does not resolve", err)
		}
		if r := a.Status().Relays; len(r) != 1 || r[0].State != stateConnecting || !strings.Contains(r[0].Error, "relays.example") {
			t.Errorf("the status is %+v", r)
		}
		relays := s.ordered(a)
		n.set(relays[1].ip(), relays[3].ip(), relays[4].ip(), relays[5].ip())
		s.expect(5*time.Second, "when it resolves", relays, 0, 1, 0, 1, 0, 0)
		if r := a.Status().Relays[0]; r.Relay != at.String() || r.Address != relays[1].ip().String() {
			t.Errorf("the status is %+v", r)
		}
		if w, err := a.home.Relays(), a.home.Route(); len(w) != 1 || w[0] != at {
			t.Errorf("the home of %v knows %v", err, w)
		}
		// A better one joins, and one that is in use leaves.
		n.set(relays[0].ip(), relays[3].ip(), relays[4].ip(), relays[5].ip())
		s.always(6*time.Minute, 2)
		s.expect(0, "after a change", relays, 1, 0, 0, 1, 0, 0)
		// All die but the worst.
		for _, r := range relays[:5] {
			r.kill()
		}
		s.expect(15*time.Second, "when one is left", relays, 0, 0, 0, 0, 0, 1)
	})
}

// TestTwoFamilies has two addresses of one relay, the first of which leads
// nowhere, count as one.
func TestTwoFamilies(t *testing.T) {
	underSky(t, 2, func(t *testing.T, s *sky) {
		at := s.relays[0].at()
		at.Addr = "relays.example:4433"
		n := &names{}
		n.set(netip.MustParseAddr("2001:db8::1"), s.relays[0].ip())
		_, end := s.agent([]wire.Relay{at, s.relays[1].at()}, n, nil, nil)
		defer end()
		s.expect(attemptPatience+time.Second, "at the start", s.relays, 1, 1)
		time.Sleep(time.Hour)
		s.expect(0, "an hour later", s.relays, 1, 1)
	})
}
