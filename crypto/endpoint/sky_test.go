package endpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// oneWay is the delay of the simulated network from anyone to anyone.
const oneWay = 20 * time.Millisecond

// sky is a simulated network with relays, which say what a test has them say.
type sky struct {
	t      *testing.T
	cables *cables
	relays []*fakeRelay
	hosts  byte
	homes  []*pair.Home // for the next agents
	ends   []func()
}

// cables pass nothing from or to an address that is cut.
type cables struct {
	simnet.PerfectRouter
	mu  sync.Mutex
	cut map[string]bool // by IP
}

func (c *cables) SendPacket(p simnet.Packet) error {
	c.mu.Lock()
	cut := c.cut[p.From.(*net.UDPAddr).IP.String()] || c.cut[p.To.(*net.UDPAddr).IP.String()]
	c.mu.Unlock()
	if cut {
		return nil
	}
	c.PerfectRouter.SendPacket(p) // to nobody: it is lost
	return nil
}

func (c *cables) set(ip net.IP, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[ip.String()] = cut
}

// underSky runs f in virtual time on a network with n relays.
func underSky(t *testing.T, n int, f func(*testing.T, *sky)) {
	t.Helper()
	var certs []tls.Certificate
	for range n {
		certs = append(certs, transporttest.Certificate(t))
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sky{t: t, cables: &cables{cut: make(map[string]bool)}}
		for i, cert := range certs {
			addr := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i+1)).To4(), Port: 4433}
			r := &fakeRelay{sky: s, addr: addr, cert: cert, conn: s.socket(addr)}
			r.start()
			s.relays = append(s.relays, r)
		}
		defer func() {
			for _, r := range s.relays {
				r.kill()
			}
			for _, end := range s.ends {
				end()
			}
			time.Sleep(time.Minute) // quic-go forgets closed connections by timers
		}()
		f(t, s)
	})
}

func (s *sky) socket(addr *net.UDPAddr) net.PacketConn {
	s.t.Helper()
	own := &simnet.Simnet{Router: s.cables}
	conn := own.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: oneWay})
	if err := own.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.ends = append(s.ends, func() { conn.Close(); own.Close() })
	return conn
}

// all returns the relays as an agent is given them.
func (s *sky) all() []wire.Relay {
	var all []wire.Relay
	for _, r := range s.relays {
		all = append(all, r.at())
	}
	return all
}

// prepare makes n homes at the same time: they wait for the disk.
func (s *sky) prepare(n int) {
	s.t.Helper()
	homes, errs := make([]*pair.Home, n), make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		dir := s.t.TempDir()
		wait.Go(func() { homes[i], errs[i] = pair.OpenHome(dir + "/home") })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		s.t.Fatal(err)
	}
	s.homes = append(s.homes, homes...)
}

// agent makes an agent, which set may change before it starts. The test ends it
// with the returned function.
func (s *sky) agent(relays []wire.Relay, r fleet.Resolver, log *slog.Logger, set func(*Agent)) (a *Agent, end func()) {
	s.t.Helper()
	if len(s.homes) == 0 {
		s.prepare(1)
	}
	home := s.homes[0]
	s.homes = s.homes[1:]
	s.hosts++
	var err error
	socket := s.socket(&net.UDPAddr{IP: net.IPv4(10, 0, 1, s.hosts).To4(), Port: 9000})
	if a, err = prepare(AgentConfig{Home: home, Relays: relays, Socket: socket, Log: log}, r); err != nil {
		s.t.Fatal(err)
	}
	if set != nil {
		set(a)
	}
	a.start()
	return a, func() {
		if err := a.Close(); err != nil {
			s.t.Error(err)
		}
		home.Close()
	}
}

// ordered returns the relays in the agent's order.
func (s *sky) ordered(a *Agent) []*fakeRelay {
	var own []fleet.Relay
	for _, r := range s.relays {
		own = append(own, fleet.Relay{ID: r.addr.String(), Weight: 1})
	}
	var ordered []*fakeRelay
	for _, o := range fleet.Order(a.home.Route(), own) {
		i := slices.IndexFunc(s.relays, func(r *fakeRelay) bool { return r.addr.String() == o.ID })
		ordered = append(ordered, s.relays[i])
	}
	return ordered
}

// registered returns at how many relays agents are registered.
func (s *sky) registered() int {
	n := 0
	for _, r := range s.relays {
		if r.count() > 0 {
			n++
		}
	}
	return n
}

// expect wants given numbers of connections at relays, soon.
func (s *sky) expect(within time.Duration, what string, relays []*fakeRelay, connections ...int) (took time.Duration) {
	s.t.Helper()
	start := time.Now()
	for {
		var got []int
		for _, r := range relays {
			got = append(got, r.count())
		}
		if slices.Equal(got, connections) {
			return time.Since(start)
		}
		if time.Since(start) >= within {
			s.t.Fatalf("%s: after %v the relays have %v connections, want %v", what, within, got, connections)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// always fails if at any moment of d fewer than n relays have the agent.
func (s *sky) always(d time.Duration, n int) {
	s.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got := s.registered(); got < n {
			s.t.Fatalf("the agent is registered at %d relays, want %d all the time", got, n)
		}
	}
}

// fakeRelay registers who comes.
type fakeRelay struct {
	sky  *sky
	addr *net.UDPAddr
	cert tls.Certificate
	conn net.PacketConn

	ln   *transport.Listener
	wait sync.WaitGroup

	mu     sync.Mutex
	refuse wire.Code // said at HELLO; CodeNone: everybody is registered
	ticket string    // demanded at REGISTER; "": none
	valid  uint32    // seconds, said in REGISTERED
	hellos int
	shown  string // the receipt of the latest REGISTER
	agents []*registered
}

type registered struct {
	transport.Session
	control  transport.Stream
	instance wire.Instance
}

func (r *fakeRelay) at() wire.Relay {
	return wire.Relay{Addr: r.addr.String(), Pin: transport.PinOf(r.cert.Leaf)}
}

func (r *fakeRelay) start() {
	r.sky.t.Helper()
	ln, err := transport.Listen(transport.ListenConfig{
		Sockets: []transport.Socket{{Conn: r.conn}}, Certificate: r.cert, ResetKey: [32]byte{1}, TokenKey: [32]byte{2},
	})
	if err != nil {
		r.sky.t.Fatal(err)
	}
	r.ln = ln
	r.sky.cables.set(r.addr.IP, false)
	r.wait.Go(func() {
		for {
			sess, err := ln.Accept(context.Background())
			if err != nil {
				return
			}
			r.wait.Go(func() { r.serve(sess) })
		}
	})
}

// kill ends the relay without a word. Packets for it are lost.
func (r *fakeRelay) kill() {
	if r.ln == nil {
		return
	}
	r.sky.cables.set(r.addr.IP, true)
	r.ln.Close()
	r.wait.Wait()
	r.ln = nil
}

func (r *fakeRelay) serve(sess transport.Session) {
	ctx := context.Background()
	control, err := sess.AcceptStream(ctx)
	if err != nil {
		return
	}
	if _, err := wire.ReadFrame(control); err != nil { // HELLO
		return
	}
	r.mu.Lock()
	r.hellos++
	refuse := r.refuse
	r.mu.Unlock()
	if refuse != wire.CodeNone {
		sess.Close(refuse, "as the test wants it")
		return
	}
	f, err := wire.ReadFrame(control)
	if err != nil {
		return
	}
	reg, err := wire.ParseRegister(f.Payload)
	if err != nil {
		r.sky.t.Error(err)
		return
	}
	if code := r.judge(reg); code != wire.CodeNone {
		sess.Close(code, "as the test wants it")
		return
	}
	control.Write(wire.Registered{Valid: r.lasts()}.Append(wire.Welcome{Version: wire.MaxVersion}.Append(nil)))
	own := &registered{sess, control, reg.Instance}
	r.mu.Lock()
	r.agents = append(r.agents, own)
	r.mu.Unlock()
	for {
		update, err := sess.AcceptStream(ctx)
		if err != nil {
			break
		}
		if f, err := wire.ReadFrame(update); err == nil {
			reg, err := wire.ParseRegister(f.Payload)
			if err != nil {
				r.sky.t.Error(err)
			}
			if code := r.judge(reg); code != wire.CodeNone {
				sess.Close(code, "as the test wants it")
				continue
			}
			update.Write(wire.Registered{Valid: r.lasts()}.Append(nil))
			update.CloseWrite()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agents = slices.DeleteFunc(r.agents, func(a *registered) bool { return a == own })
}

// judge looks at the ticket.
func (r *fakeRelay) judge(reg wire.Register) wire.Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown = reg.Receipt
	switch {
	case r.ticket == "" || r.ticket == reg.Ticket:
		return wire.CodeNone
	case reg.Ticket == "":
		return wire.CodeTicketMissing
	}
	return wire.CodeTicketRefused
}

// demand has the relay take one ticket alone, which lasts for so many seconds.
func (r *fakeRelay) demand(ticket string, valid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ticket, r.valid = ticket, valid
}

func (r *fakeRelay) lasts() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.valid
}

// receipt returns what the latest REGISTER has shown.
func (r *fakeRelay) receipt() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown
}

// tell says something on every control stream, and waits until it is heard.
func (r *fakeRelay) tell(frames ...[]byte) {
	r.each(func(a *registered) { a.control.Write(bytes.Join(frames, nil)) })
	time.Sleep(2 * oneWay)
}

// count returns how many connections are registered.
func (r *fakeRelay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.agents)
}

func (r *fakeRelay) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hellos
}

func (r *fakeRelay) refuseWith(c wire.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = c
}

// each calls f with every registered connection.
func (r *fakeRelay) each(f func(*registered)) {
	r.mu.Lock()
	all := slices.Clone(r.agents)
	r.mu.Unlock()
	for _, a := range all {
		f(a)
	}
}

// drain refuses newcomers and asks the others to move.
func (r *fakeRelay) drain(after time.Duration) {
	r.refuseWith(wire.CodeDraining)
	r.each(func(a *registered) {
		a.control.Write(wire.Goodbye{Code: wire.CodeDraining, RetryAfter: uint32(after.Milliseconds()), Text: "emptied"}.Append(nil))
	})
}

// bring opens a stream of a device to the latest connection, and returns it
// when the agent has it.
func (r *fakeRelay) bring(attachment uint64) transport.Stream {
	r.sky.t.Helper()
	r.mu.Lock()
	a := r.agents[len(r.agents)-1]
	r.mu.Unlock()
	st, err := a.OpenStream(context.Background())
	if err != nil {
		r.sky.t.Fatal(err)
	}
	st.Write(wire.Incoming{Attachment: attachment}.Append(nil))
	time.Sleep(2 * oneWay)
	return st
}

// drop closes every connection with a code.
func (r *fakeRelay) drop(c wire.Code) {
	r.mu.Lock()
	r.shown = ""
	r.mu.Unlock()
	r.each(func(a *registered) { a.Close(c, "as the test wants it") })
}

// holding has an agent's streams stay open until the relay resets them.
func holding(a *Agent) {
	a.roster.handle = func(_ uint64, st e2e.Stream) {
		go func() {
			io.Copy(io.Discard, st)
			st.Reset(wire.CodeCancelled)
		}()
	}
}
