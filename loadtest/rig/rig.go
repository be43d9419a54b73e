// Package rig builds what viewers watch through: homes with an agent and an
// origin, devices that are paired with them, and the access lines of both. Or
// nothing of that, for a path that somebody else has built.
//
//	r, err := rig.New(rig.Config{Relay: &relay, DeviceLink: "lte", Origin: origin})
//	a, err := r.Access(ctx, 0)          // of the first viewer
//	resp, err := a.Client.Get(a.Base + "/vod/master.m3u8")
//	err = r.Close()
package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/loadtest/result"
	"github.com/blindrelay/blindrelay/transport/netsim"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Config says what to build. One of Relay, Invite and URL is given.
type Config struct {
	Relay  *wire.Relay                      // agents and devices are made here
	Ticket func(wire.Route) (string, error) // what Relay is shown for an agent's route; nil: it admits every agent
	Invite *pair.Invite                     // of a server that somebody shares: all viewers are the one device that it pairs
	URL    string                           // of any HTTP path, like http://127.0.0.1:8096; no home is built then

	ViewersPerHome int    // how many share an agent; 0: 4
	DeviceLink     string // netsim profile of each device's access line; empty: none
	HomeLink       string // of each home's
	Seed           uint64 // of the lines' chances

	Origin http.Handler // what each home serves
	Log    *slog.Logger // nil: nothing is logged
}

// Rig is what was built. It must be closed.
type Rig struct {
	cfg          Config
	device, home *netsim.Path // nil: no line
	dir          string

	invited sync.Once // makes device
	shared  *device   // of the invite
	err     error     // why there is none

	mu    sync.Mutex
	homes map[int]*home
	lines []*netsim.Line // of all that were ever made
}

// Access is one viewer's way to the origin.
type Access struct {
	Client  *http.Client
	Base    string        // scheme and host in front of the origin's paths
	Connect time.Duration // from the first dial to an admitted session; 0 for a plain URL
	Close   func() error
}

// New checks the configuration. Homes are built when a viewer needs them.
func New(cfg Config) (*Rig, error) {
	ways := 0
	for _, given := range []bool{cfg.Relay != nil, cfg.Invite != nil, cfg.URL != ""} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, errors.New("a load test goes through a relay, to a server by its invite, or to a URL: give one of the three")
	}
	if cfg.ViewersPerHome == 0 {
		cfg.ViewersPerHome = 4
	}
	if cfg.ViewersPerHome < 0 {
		return nil, fmt.Errorf("%d viewers in a home", cfg.ViewersPerHome)
	}
	r := &Rig{cfg: cfg, homes: make(map[int]*home)}
	var err error
	if r.device, err = profile(cfg.DeviceLink); err != nil {
		return nil, err
	}
	if r.home, err = profile(cfg.HomeLink); err != nil {
		return nil, err
	}
	if cfg.Relay == nil && r.home != nil {
		return nil, errors.New("a home's link needs homes, and only those behind a relay are made here")
	}
	if r.dir, err = os.MkdirTemp("", "blindload-"); err != nil {
		return nil, err
	}
	return r, nil
}

func profile(name string) (*netsim.Path, error) {
	if name == "" {
		return nil, nil
	}
	p, err := netsim.ParseProfile(name)
	return &p, err
}

// Homes returns how many homes viewers have needed.
func (r *Rig) Homes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.homes)
}

// Links sums up what the emulated lines did; nil if there are none.
func (r *Rig) Links() *result.Links {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return nil
	}
	sum := &result.Links{}
	for _, line := range r.lines {
		s := line.Stats()
		for _, l := range []netsim.LinkStats{s.Up, s.Down} {
			sum.Packets += int64(l.Packets)
			sum.Lost += int64(l.Lost)
			sum.Dropped += int64(l.Dropped)
			sum.Late = max(sum.Late, l.Late)
			sum.LateMax = max(sum.LateMax, l.LateMax)
		}
	}
	return sum
}

// newLine makes an access line.
func (r *Rig) newLine(path netsim.Path, seed uint64) (*netsim.Line, error) {
	line, err := netsim.New(netsim.Config{Path: path, Seed: seed})
	if err == nil {
		r.mu.Lock()
		r.lines = append(r.lines, line)
		r.mu.Unlock()
	}
	return line, err
}

// Close ends everything that was built.
func (r *Rig) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.shared != nil {
		errs = append(errs, r.shared.close())
	}
	for _, h := range r.homes {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// Access connects viewer i. It may be called for several viewers at once.
func (r *Rig) Access(ctx context.Context, i int) (*Access, error) {
	if r.cfg.URL != "" {
		return r.direct(i)
	}
	if r.cfg.Invite != nil {
		return r.guest(ctx)
	}
	h, err := r.homeOf(ctx, i)
	if err != nil {
		return nil, fmt.Errorf("home of viewer %d: %w", i, err)
	}
	a, err := r.sealed(ctx, h, i)
	if err != nil {
		return nil, fmt.Errorf("device of viewer %d: %w", i, err)
	}
	return a, nil
}

// direct is a viewer of a plain URL, over a line of its own.
func (r *Rig) direct(i int) (*Access, error) {
	t := &http.Transport{}
	end := func() error { t.CloseIdleConnections(); return nil }
	if r.device != nil {
		line, err := r.newLine(*r.device, r.cfg.Seed+uint64(i))
		if err != nil {
			return nil, err
		}
		t.DialContext = line.Dial
		end = func() error { t.CloseIdleConnections(); return line.Close() }
	}
	return &Access{Client: &http.Client{Transport: t}, Base: strings.TrimSuffix(r.cfg.URL, "/"), Close: end}, nil
}

// device is a paired device with a session.
type device struct {
	dialer  *endpoint.Dialer
	access  access
	connect time.Duration // until it was admitted
}

func (d *device) close() error { return errors.Join(d.dialer.Close(), d.access.close()) }

// client returns an HTTP client with connections of its own.
func (d *device) client() (*http.Client, func()) {
	t := &http.Transport{DialContext: d.dialer.DialContext}
	return &http.Client{Transport: t}, t.CloseIdleConnections
}

// sealed pairs a device with a home and connects it.
func (r *Rig) sealed(ctx context.Context, h *home, i int) (*Access, error) {
	d, err := r.newDevice(ctx, r.cfg.Seed+uint64(i)<<1, h.pair)
	if err != nil {
		return nil, err
	}
	client, idle := d.client()
	return &Access{Client: client, Base: base, Connect: d.connect, Close: func() error {
		idle()
		return d.close()
	}}, nil
}

// guest is a viewer on the one device that the invite pairs.
func (r *Rig) guest(ctx context.Context) (*Access, error) {
	r.invited.Do(func() {
		r.shared, r.err = r.newDevice(ctx, r.cfg.Seed, func(ctx context.Context, key *ecdsa.PrivateKey, log *slog.Logger) (pair.Server, error) {
			return endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: *r.cfg.Invite, Name: "blindload", Log: log})
		})
	})
	if r.err != nil {
		return nil, r.err
	}
	client, idle := r.shared.client()
	return &Access{Client: client, Base: base, Connect: r.shared.connect, Close: func() error {
		idle()
		return nil
	}}, nil
}

// base is where a device's requests go: there is one place.
const base = "http://home"

// newDevice makes a device, pairs it, and waits until it is admitted.
func (r *Rig) newDevice(ctx context.Context, seed uint64, pair func(context.Context, *ecdsa.PrivateKey, *slog.Logger) (pair.Server, error)) (*device, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	server, err := pair(ctx, key, r.cfg.Log)
	if err != nil {
		return nil, err
	}
	way, err := r.accessOn(r.device, seed)
	if err != nil {
		return nil, err
	}
	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: key, Server: server, Log: r.cfg.Log, Socket: way.socket, DialTCP: way.dialTCP})
	if err != nil {
		return nil, errors.Join(err, way.close())
	}
	d := &device{dialer: dialer, access: way}
	begin := time.Now()
	if err := dialer.Connect(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	d.connect = time.Since(begin)
	return d, nil
}

// homeOf returns viewer i's home, and builds it for the first of its viewers.
func (r *Rig) homeOf(ctx context.Context, i int) (*home, error) {
	n := i / r.cfg.ViewersPerHome
	r.mu.Lock()
	h := r.homes[n]
	if h == nil {
		h = &home{}
		r.homes[n] = h
	}
	r.mu.Unlock()
	h.once.Do(func() { h.err = h.build(ctx, r, n) })
	return h, h.err
}

// access is an endpoint's line, and what it reaches relays with over it.
type access struct {
	socket  net.PacketConn
	dialTCP func(ctx context.Context, network, addr string) (net.Conn, error) // nil: QUIC alone
	line    *netsim.Line                                                      // nil: none
}

// accessOn returns a UDP socket on a line of its own; with no path it is plain.
// There is TCP only on a path that blocks UDP: on the others it would take
// QUIC's place where packets are lost, and the emulated losses of TCP are milder
// than the world's.
func (r *Rig) accessOn(path *netsim.Path, seed uint64) (access, error) {
	udp, err := net.ListenUDP("udp", nil)
	if err != nil || path == nil {
		return access{socket: udp}, err
	}
	line, err := r.newLine(*path, seed)
	if err != nil {
		return access{}, errors.Join(err, udp.Close())
	}
	a := access{line: line}
	if a.socket, err = line.WrapPacketConn(udp); err != nil {
		return access{}, errors.Join(err, line.Close(), udp.Close())
	}
	if path.BlockUDP {
		a.dialTCP = line.Dial
	}
	return a, nil
}

// close ends the line; the socket is its endpoint's.
func (a access) close() error {
	if a.line == nil {
		return nil
	}
	return a.line.Close()
}

// home is one agent with its origin.
type home struct {
	once   sync.Once
	err    error // of build
	state  *pair.Home
	agent  *endpoint.Agent
	access access
	serve  sync.WaitGroup
}

func (h *home) build(ctx context.Context, r *Rig, n int) error {
	var err error
	if h.state, err = pair.OpenHome(filepath.Join(r.dir, strconv.Itoa(n))); err != nil {
		return err
	}
	ticket := ""
	if r.cfg.Ticket != nil {
		if ticket, err = r.cfg.Ticket(h.state.Route()); err != nil {
			return err
		}
	}
	if h.access, err = r.accessOn(r.home, r.cfg.Seed+uint64(n)<<1+1); err != nil {
		return err
	}
	h.agent, err = endpoint.NewAgent(endpoint.AgentConfig{Home: h.state, Relays: []wire.Relay{*r.cfg.Relay}, Ticket: ticket, Log: r.cfg.Log, Socket: h.access.socket, DialTCP: h.access.dialTCP})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: r.cfg.Origin, ReadHeaderTimeout: 10 * time.Second}
	h.serve.Go(func() { server.Serve(h.agent.Listen()) })
	return h.agent.Ready(ctx)
}

// pair lets one device in.
func (h *home) pair(ctx context.Context, key *ecdsa.PrivateKey, log *slog.Logger) (pair.Server, error) {
	inv, err := h.state.NewInvite("", 0, false)
	if err != nil {
		return pair.Server{}, err
	}
	if err := h.agent.Publish(ctx); err != nil {
		return pair.Server{}, err
	}
	return endpoint.Pair(ctx, endpoint.PairConfig{Identity: key, Invite: inv, Name: "viewer", Log: log})
}

func (h *home) close() error {
	var errs []error
	if h.agent != nil {
		errs = append(errs, h.agent.Close())
	}
	h.serve.Wait()
	errs = append(errs, h.access.close())
	if h.state != nil {
		errs = append(errs, h.state.Close())
	}
	return errors.Join(errs...)
}
