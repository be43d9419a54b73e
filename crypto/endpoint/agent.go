package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// AgentConfig is what an Agent is made with.
type AgentConfig struct {
	// Home holds the keys and the devices, and keeps what relays say that the
	// server has used. Required; it stays the caller's, who closes it after the
	// Agent.
	Home *pair.Home
	// Relays is where the agent can be reached: 1 to 3 addresses, or names that
	// stand for more (see fleet.Resolve). Of all that they lead to the agent
	// keeps itself registered at the two that come first for its route and
	// work. The Home keeps Relays for invites.
	Relays []wire.Relay
	// Ticket is what relays are shown that admit agents by tickets, at most
	// wire.MaxTicket bytes; "" is none. Renew replaces it.
	Ticket string
	// Approve asks the owner about a device whose invite demands it. Nil
	// refuses such devices.
	Approve pair.Approver
	// Log takes what the owner should know. Nil logs nothing.
	Log *slog.Logger
	// Socket carries all QUIC connections to relays. The Agent owns it. Nil: a
	// UDP socket of its own.
	Socket net.PacketConn
	// DialTCP dials for TLS on TCP where UDP is blocked; it has to heed its
	// context. Nil: the machine's network, but no TCP at all if Socket is given.
	DialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Agent makes a media server reachable through relays. It reconnects by itself
// until it is closed, and follows the Home: devices that are revoked lose
// their sessions, and while remote access is off no relay knows the route.
//
// It runs one goroutine to follow the Home, one to choose relays, one to follow
// their names, one to store their receipts, and three for each connection to a
// relay, besides those of its sessions.
type Agent struct {
	home   *pair.Home
	log    *slog.Logger
	server *e2e.Server
	dialer *transport.Dialer
	cert   tls.Certificate
	relays []wire.Relay // as configured
	roster *roster

	receipts *receipts

	ticket  atomic.Pointer[string] // never nil
	renewed signal                 // there is a new ticket

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wait   sync.WaitGroup
	once   sync.Once
	err    error // of Close
}

// NewAgent starts an agent. The caller closes it.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	a, err := prepare(cfg, nil)
	if err != nil {
		return nil, err
	}
	a.start()
	return a, nil
}

// prepare makes an agent that does nothing yet. With nil as the resolver it
// asks the system's.
func prepare(cfg AgentConfig, r fleet.Resolver) (*Agent, error) {
	if err := cfg.Home.SetRelays(cfg.Relays); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	id, err := e2e.NewIdentity(cfg.Home.Identity())
	if err != nil {
		return nil, err
	}
	// The route key has nothing in common with the identity, except that the
	// hop too wants a certificate without a name around it.
	route, err := e2e.NewIdentity(cfg.Home.RouteKey())
	if err != nil {
		return nil, err
	}
	a := &Agent{home: cfg.Home, log: cfg.Log, cert: route.Certificate(), relays: slices.Clone(cfg.Relays)}
	a.ticket.Store(&cfg.Ticket)
	a.receipts = newReceipts(cfg.Home, cfg.Log)
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.server, err = e2e.NewServer(e2e.ServerConfig{
		Identity: id,
		Admit:    a.admit,
		Pair:     func(ctx context.Context, c *e2e.PairingConn) { a.pair(ctx, c, cfg.Approve) },
		Log:      cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if a.dialer, err = (transport.DialerConfig{Socket: cfg.Socket, DialTCP: cfg.DialTCP}).NewDialer(); err != nil {
		return nil, errors.Join(err, a.server.Close())
	}
	a.roster = newRoster(a, fleet.NewSet(r, cfg.Relays))
	return a, nil
}

func (a *Agent) start() {
	a.wait.Go(func() { a.roster.set.Keep(a.ctx, a.roster.moved.broadcast) })
	a.wait.Go(a.roster.keep)
	a.wait.Go(a.follow)
	a.wait.Go(func() { a.receipts.keep(a.ctx) })
}

// Listen returns the agent as a net.Listener. Its connections are *e2e.Conn;
// DeviceOf tells whose. Closing it closes the agent.
func (a *Agent) Listen() net.Listener { return listener{a} }

type listener struct{ *Agent }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.server.Accept()
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (l listener) Addr() net.Addr { return routeAddr(l.home.Route()) }

type routeAddr wire.Route

func (routeAddr) Network() string  { return "blindrelay" }
func (r routeAddr) String() string { return wire.Route(r).String() }

// DeviceOf returns the pin of the device at the other end of a connection that
// an Agent accepted.
func DeviceOf(c net.Conn) (pin e2e.Pin, ok bool) {
	sealed, ok := c.(*e2e.Conn)
	if !ok {
		return e2e.Pin{}, false
	}
	return sealed.Peer(), true
}

// admit is asked for every session and every stream.
func (a *Agent) admit(pin e2e.Pin) (e2e.Welcome, error) {
	device, ok := a.home.Admit(pin)
	if !ok {
		return e2e.Welcome{}, errors.New("the device is not on the list, or remote access is off")
	}
	if time.Since(device.Seen) > time.Hour {
		// At most one write an hour for each device; it is news, not security.
		if err := a.home.MarkSeen(pin); err != nil {
			a.log.Warn("the time a device was seen could not be written", "device", device.Name, "error", err)
		}
	}
	w := e2e.Welcome{RouteToken: a.home.Token(pin)}
	for _, r := range a.relays {
		w.Relays = append(w.Relays, r.String())
	}
	return w, nil
}

func (a *Agent) pair(ctx context.Context, c *e2e.PairingConn, approve pair.Approver) {
	device, err := a.home.Serve(ctx, c, c.Peer(), c.Binding(), approve)
	if err != nil {
		a.log.Warn("a device did not pair", "error", err)
		return
	}
	a.log.Info("a device has paired", "device", device.Name)
}

// follow ends what the Home no longer allows, at each change of it.
func (a *Agent) follow() {
	for {
		changed := a.home.Changed()
		a.Enforce()
		select {
		case <-changed:
		case <-a.ctx.Done():
			return
		}
	}
}

// Enforce ends every session that the device list, or the switch for remote
// access, no longer allows. When it returns none of them can read or write
// another byte of content. The agent also does so by itself soon after each
// change; who has to be sure calls Enforce.
func (a *Agent) Enforce() {
	if !a.home.Enabled() {
		a.server.CloseSessions(wire.CodeOff, "the owner has turned remote access off")
		return
	}
	for _, s := range a.server.Sessions() {
		if _, ok := a.home.Admit(s.Device); !ok {
			a.server.Revoke(s.Device)
		}
	}
}

// Publish returns when every relay that the agent is registered at knows the
// Home's tokens as they are now: a new invite can be redeemed, a revoked
// device is turned away at the edge. The agent also does so by itself soon
// after each change.
func (a *Agent) Publish(ctx context.Context) error {
	return a.roster.publish(ctx)
}

// Renew replaces the ticket: relays at which the agent is registered are shown
// it at once and go on, those that did not take the one before are tried again.
func (a *Agent) Renew(ticket string) {
	a.ticket.Store(&ticket)
	a.renewed.broadcast()
	a.roster.forgive()
}

// Close takes the route from the relays, ends every session, and waits.
func (a *Agent) Close() error {
	a.once.Do(func() {
		a.cancel()
		a.err = a.server.Close()
		a.wait.Wait()
		a.receipts.save()
		a.err = errors.Join(a.err, a.dialer.Close())
	})
	return a.err
}
