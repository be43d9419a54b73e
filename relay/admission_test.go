package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/relay/admit"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// issuer signs tickets for one agent.
type issuer struct {
	t     *testing.T
	key   ed25519.PrivateKey
	cert  tls.Certificate
	route wire.Route
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := transporttest.Certificate(t)
	return &issuer{t, key, cert, wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)}
}

func (i *issuer) config() Config { return Config{Admit: i.policy(), BufferMemory: 4 << 30} }

func (i *issuer) policy() admit.Policy {
	i.t.Helper()
	public, err := admit.IssuerOf(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	p, err := admit.NewTickets([]admit.Issuer{public})
	if err != nil {
		i.t.Fatal(err)
	}
	return p
}

// ticket is valid for so long.
func (i *issuer) ticket(d time.Duration) string {
	i.t.Helper()
	text, err := admit.Ticket{Route: i.route, Grant: admit.Grant{Until: time.Now().Add(d), Sessions: 7}}.Sign(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

// register registers another connection of the agent with a ticket.
func (i *issuer) register(w *world, ticket string) (*hop.Registration, error) {
	i.t.Helper()
	return hop.Register(w.ctx(), w.dial(&i.cert), wire.Register{
		Instance: wire.Instance{1}, Tokens: []wire.TokenHash{token.Hash()}, Ticket: ticket,
	})
}

func (i *issuer) mustRegister(w *world, ticket string) *hop.Registration {
	i.t.Helper()
	r, err := i.register(w, ticket)
	if err != nil {
		i.t.Fatal(err)
	}
	return r
}

// TestTicket lets an agent in with a ticket, and none without.
func TestTicket(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	simulate(t, i.config(), func(w *world) {
		for code, ticket := range map[wire.Code]string{
			wire.CodeTicketMissing: "",
			wire.CodeTicketRefused: stranger.ticket(time.Hour),
			wire.CodeTicketExpired: i.ticket(-time.Second),
		} {
			_, err := i.register(w, ticket)
			closed, ok := errors.AsType[*wire.ClosedError](err)
			if !ok || closed.Code != code || closed.Text == "" || !closed.Remote {
				t.Errorf("%v: the agent hears %v", code, err)
			}
			wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, code, 1)
		}
		a := i.mustRegister(w, i.ticket(time.Hour))
		if left := time.Until(a.Until()); left < time.Hour-5*time.Second || left > time.Hour+time.Second {
			t.Errorf("the agent hears of %v", left)
		}
		g, _ := w.relay.registry.find(i.route, token.Hash())
		if n := w.relay.registry.verdict(g).grant.Sessions; n != 7 {
			t.Errorf("the grant has %d sessions", n)
		}
		w.open(w.device(i.route), a)
	})
}

// TestTicketExpires ends both connections of an agent when its ticket does,
// with a goodbye that says why, and streams go on until then.
func TestTicketExpires(t *testing.T) {
	i := newIssuer(t)
	simulate(t, i.config(), func(w *world) {
		ticket := i.ticket(time.Minute)
		first, second := i.mustRegister(w, ticket), i.mustRegister(w, ticket)
		end := time.Now().Add(time.Minute)
		w.open(w.device(i.route), second)
		time.Sleep(time.Minute - 5*time.Second)
		if first.Err() != nil || second.Err() != nil {
			t.Fatalf("before its time: %v, %v", first.Err(), second.Err())
		}
		<-first.Leaving()
		<-second.Leaving()
		for _, a := range []*hop.Registration{first, second} {
			select {
			case <-a.Done():
				t.Error("the end comes without a goodbye")
			default:
			}
		}
		for _, a := range []*hop.Registration{first, second} {
			closed, ok := errors.AsType[*wire.ClosedError](a.Err())
			if !ok || closed.Code != wire.CodeTicketExpired || !strings.Contains(closed.Text, "time was over") {
				t.Errorf("the goodbye says %v", a.Err())
			}
			wantClosed(t, a, wire.CodeTicketExpired)
			if late := time.Since(end); late < -time.Second || late > 3*time.Second {
				t.Errorf("it ended %v after the ticket", late)
			}
		}
		wantCount(t, "sessions ended", w.relay.metrics.sessionsEnded, wire.CodeTicketExpired, 2)
		if n := w.relay.registry.size(); n != 0 {
			t.Errorf("%d agents are registered", n)
		}
	})
}

// TestTicketRenewed shows a new ticket on one of two connections: both go on,
// with the streams, until that one ends.
func TestTicketRenewed(t *testing.T) {
	i := newIssuer(t)
	simulate(t, i.config(), func(w *world) {
		ticket := i.ticket(time.Minute)
		first, second := i.mustRegister(w, ticket), i.mustRegister(w, ticket)
		device, agent := w.open(w.device(i.route), second)
		time.Sleep(30 * time.Second)
		if err := first.Update(w.ctx(), []wire.TokenHash{token.Hash()}, i.ticket(10*time.Minute)); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(first.Until()); left < 9*time.Minute {
			t.Errorf("the agent hears of %v", left)
		}
		time.Sleep(9*time.Minute + 40*time.Second)
		agent.Write([]byte("still here"))
		if n, err := device.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("the stream: %d, %v", n, err)
		}
		wantClosed(t, first, wire.CodeTicketExpired)
		wantClosed(t, second, wire.CodeTicketExpired)
	})
}

// TestTicketThatIsNone ends the connection that shows one, and no other.
func TestTicketThatIsNone(t *testing.T) {
	i := newIssuer(t)
	simulate(t, i.config(), func(w *world) {
		first, second := i.mustRegister(w, i.ticket(time.Hour)), i.mustRegister(w, i.ticket(time.Hour))
		if err := first.Update(w.ctx(), nil, "nonsense"); err == nil {
			t.Error("it is taken")
		}
		wantClosed(t, first, wire.CodeTicketRefused)
		w.open(w.device(i.route), second)
	})
}

// TestSetPolicy ends those whom a new policy does not admit. The others do not
// notice, nor do their streams.
func TestSetPolicy(t *testing.T) {
	simulate(t, admitAll, func(w *world) {
		var kept, ended []stream
		allow := make(admit.Allow)
		for n := range 6 {
			a, route := w.agent()
			d := w.device(route)
			device, agent := w.open(d, a)
			if n%2 == 0 {
				kept = append(kept, stream{a, d, agent, device})
				allow[route] = true
			} else {
				ended = append(ended, stream{a, d, agent, device})
			}
		}
		w.relay.SetPolicy(w.ctx(), allow)
		for _, s := range ended {
			wantClosed(t, s.home, wire.CodeNotAdmitted)
			wantReset(t, s.device, wire.CodeAgentGone)
		}
		for _, s := range kept {
			s.device.Write([]byte("x"))
			if n, err := s.agent.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("a stream that stays: %d, %v", n, err)
			}
		}
		cert := transporttest.Certificate(t)
		s := w.dial(&cert)
		if _, err := hop.Register(w.ctx(), s, wire.Register{}); err == nil {
			t.Error("a new agent is judged by the policy before")
		}
	})
}

// slow is a policy that takes its time, and then does what it was told first.
type slow struct {
	admit.Policy
	pause time.Duration
}

func (s slow) Admit(ctx context.Context, r admit.Request) (admit.Grant, error) {
	select {
	case <-time.After(s.pause):
		return s.Policy.Admit(ctx, r)
	case <-ctx.Done():
		return admit.Grant{}, ctx.Err()
	}
}

// TestPolicyChangesMeanwhile registers an agent by a policy that is replaced
// while it decides.
func TestPolicyChangesMeanwhile(t *testing.T) {
	cfg := Config{Admit: slow{admit.Open{}, 3 * time.Second}, BufferMemory: 4 << 30}
	simulate(t, cfg, func(w *world) {
		var wait sync.WaitGroup
		ctx := w.ctx()
		wait.Go(func() {
			time.Sleep(time.Second)
			w.relay.SetPolicy(ctx, admit.Allow{})
		})
		cert := transporttest.Certificate(t)
		s := w.dial(&cert)
		// It hears of its admission first, or of the end at once.
		_, _ = hop.Register(ctx, s, wire.Register{})
		wantClosed(t, s, wire.CodeNotAdmitted)
		wait.Wait()
	})
}

// TestRenewedMeanwhile shows a new ticket just before the old one ends, to a
// policy that is slow to take it: what it says about the old one comes too late.
func TestRenewedMeanwhile(t *testing.T) {
	i := newIssuer(t)
	cfg := i.config()
	cfg.Admit = slow{cfg.Admit, 2 * time.Second}
	simulate(t, cfg, func(w *world) {
		end := time.Now().Add(time.Minute)
		a := i.mustRegister(w, i.ticket(time.Minute))
		time.Sleep(time.Until(end) - time.Second)
		if err := a.Update(w.ctx(), []wire.TokenHash{token.Hash()}, i.ticket(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.open(w.device(i.route), a)
	})
}

// TestPolicyWithoutAnswer gives up and refuses.
func TestPolicyWithoutAnswer(t *testing.T) {
	var log lines
	cfg := Config{Admit: slow{admit.Open{}, time.Hour}, BufferMemory: 4 << 30, Log: slog.New(slog.NewTextHandler(&log, nil))}
	simulate(t, cfg, func(w *world) {
		cert := transporttest.Certificate(t)
		s := w.dial(&cert)
		begin := time.Now()
		if _, err := hop.Register(w.ctx(), s, wire.Register{Ticket: "a secret"}); err == nil {
			t.Error("an agent registered that nobody has admitted")
		}
		if d := time.Since(begin); d > judgeWithin+time.Second {
			t.Errorf("that took %v", d)
		}
		wantClosed(t, s, wire.CodeAdmitFailed)
		if said := log.String(); !strings.Contains(said, "admit_failed") || strings.Contains(said, "secret") {
			t.Errorf("the log says %s", said)
		}
	})
}

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// lease is a policy that wants to be asked again each minute, and counts.
type lease struct {
	mu    sync.Mutex
	asked int
	over  bool
}

func (l *lease) Admit(context.Context, admit.Request) (admit.Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.over {
		return admit.Grant{}, &admit.Refusal{Code: wire.CodeNotAdmitted, Text: "pay your bill"}
	}
	return admit.Grant{Until: time.Now().Add(time.Minute)}, nil
}

// TestLease asks again when a grant ends, and goes on without a word to the
// agent for as long as the answer is yes.
func TestLease(t *testing.T) {
	for _, over := range []bool{false, true} {
		l := &lease{}
		simulateOver(t, false, Config{Admit: l, BufferMemory: 4 << 30}, func(w *world) {
			a, route := w.agent()
			if !a.Until().IsZero() {
				t.Errorf("the agent hears of an end, %v, that it can do nothing about", a.Until())
			}
			time.Sleep(10*time.Minute + 30*time.Second)
			w.open(w.device(route), a)
			l.mu.Lock()
			if l.asked != 11 {
				t.Errorf("asked %d times in ten minutes", l.asked)
			}
			l.over = over
			l.mu.Unlock()
			if over {
				wantClosed(t, a, wire.CodeNotAdmitted)
				return
			}
			a.Close(wire.CodeNone, "")
			time.Sleep(10 * time.Minute)
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.asked != 11 {
				t.Errorf("asked %d times about an agent that has left", l.asked)
			}
		})
	}
}

// TestValid is what REGISTERED says about grants.
func TestValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for until, want := range map[time.Duration]uint32{
			time.Nanosecond: 1, time.Second: 1, time.Second + 1: 2, time.Hour: 3600, 290 * 365 * 24 * time.Hour: 1<<32 - 1,
		} {
			v := verdict{request: admit.Request{Ticket: "t"}, grant: admit.Grant{Until: time.Now().Add(until)}}
			if got := v.valid(); got != want {
				t.Errorf("%v: %d s, want %d", until, got, want)
			}
		}
		if v := (verdict{request: admit.Request{Ticket: "t"}}); v.valid() != 0 || v.over() {
			t.Error("a grant without an end has one")
		}
	})
}
