package endpoint

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/fleet"
	"github.com/blindrelay/blindrelay/transport/netwatch"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// DialerConfig is what a Dialer is made with.
type DialerConfig struct {
	// Identity is the device's key. Required. Relays never see it.
	Identity crypto.Signer
	// Server is what pairing returned. Required.
	Server pair.Server
	// Log takes what the user should know. Nil logs nothing.
	Log *slog.Logger
	// Socket carries all QUIC connections to relays. The Dialer owns it. Nil: a
	// UDP socket of its own; the Dialer then also follows the machine from
	// network to network.
	Socket net.PacketConn
	// DialTCP dials for TLS on TCP where UDP is blocked; it has to heed its
	// context. Nil: the machine's network, but no TCP at all if Socket is given.
	DialTCP func(ctx context.Context, network, addr string) (net.Conn, error)
	// Carriers is over how many relay connections one stream is spread at
	// most, where that makes it faster: 1 to 8, and 1 also rules out that TCP
	// takes the place of QUIC where it is faster. 0: 8.
	Carriers int
}

// dialWait is how long DialContext waits for a connection to come back, over
// failed attempts, before it gives its caller the reason.
const dialWait = 15 * time.Second

// believe is how many refusals in a row a Dialer takes for an answer. The
// first may come from a relay that has not heard yet that this device paired.
const believe = 3

// Dialer connects a device to its media server. It holds one session, made at
// the first use and remade by itself, until it is closed. Its methods may be
// called concurrently.
type Dialer struct {
	id       *e2e.Identity
	server   pair.Server
	log      *slog.Logger
	dialer   *transport.Dialer
	watch    *netwatch.Watcher // nil if the socket is not the machine's
	carriers int

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	start  sync.Once
	wait   sync.WaitGroup
	once   sync.Once
	err    error // of Close

	moved   signal // something below has changed
	mu      sync.Mutex
	state   string
	since   time.Time
	session *e2e.Session // nil while there is none
	path    *path        // nil while there is none
	where   *whereabouts
	refused int     // hopeless failures in a row
	failure error   // why the latest attempt failed or the latest path ended; nil while there is a path
	further []*path // of the session, beside path
	whyTCP  string  // if it was chosen
}

// NewDialer returns a Dialer that connects when it is first used. The caller
// closes it.
func NewDialer(cfg DialerConfig) (*Dialer, error) {
	id, err := e2e.NewIdentity(cfg.Identity)
	if err != nil {
		return nil, err
	}
	if len(cfg.Server.Relays) == 0 {
		return nil, errors.New("the server has no relay to be reached through: pair with it again")
	}
	if cfg.Carriers < 0 || cfg.Carriers > MaxCarriers {
		return nil, fmt.Errorf("a stream is spread over 1 to %d relay connections, not %d", MaxCarriers, cfg.Carriers)
	}
	d := &Dialer{id: id, server: cfg.Server, log: cfg.Log, carriers: cfg.Carriers, state: stateConnecting, since: time.Now()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.dialer, err = (transport.DialerConfig{Socket: cfg.Socket, DialTCP: cfg.DialTCP}).NewDialer(); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	if cfg.Socket == nil {
		d.watch = netwatch.New(netwatch.Config{})
	}
	return d, nil
}

// DialContext opens a sealed connection to the media server. It takes no round
// trip once the session is there. It fits http.Transport: network and addr are
// ignored, there is one place to go. [WithUrgency] says what the connection is
// for. While the relay or the server is away it
// waits up to 15 s, or until ctx ends, for them to return; a refusal is
// returned at once. The connection is an *e2e.Conn.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialWait, errNoPath)
	defer cancel()
	for {
		session, err := d.await(ctx)
		if err != nil {
			return nil, err
		}
		c, err := session.OpenStream(ctx)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, e2e.ErrTooManyStreams) || ctx.Err() != nil {
			return nil, d.because(err)
		}
		if err := d.leave(ctx, session); err != nil {
			return nil, err
		}
	}
}

// because prefers the reason why there is no path to an error that is only its
// consequence.
func (d *Dialer) because(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, errNoPath) && d.failure != nil {
		return d.failure
	}
	return err
}

// errNoPath is the cause of a wait that took too long.
var errNoPath = errors.New("no connection to the server")

// Connect waits until the server has admitted this device, or says why not.
// It waits as long as ctx lets it, unless the server or the relay refuses.
func (d *Dialer) Connect(ctx context.Context) error {
	_, err := d.admitted(ctx)
	return err
}

// admitted returns a session that the server has let in, and waits as Connect
// does.
func (d *Dialer) admitted(ctx context.Context) (*e2e.Session, error) {
	for {
		session, err := d.await(ctx)
		if err != nil {
			return nil, err
		}
		_, err = session.Welcome(ctx)
		if err == nil {
			return session, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if err := d.leave(ctx, session); err != nil {
			return nil, err
		}
	}
}

// await returns the session, and waits for one. It gives up with ctx, or with a
// failure that waiting cannot mend.
func (d *Dialer) await(ctx context.Context) (*e2e.Session, error) {
	d.start.Do(func() { d.wait.Go(d.keep) })
	for {
		moved := d.moved.next()
		d.mu.Lock()
		session, failure, refused := d.session, d.failure, d.refused
		d.mu.Unlock()
		switch {
		case d.ctx.Err() != nil:
			return nil, net.ErrClosed
		case session != nil:
			return session, nil
		case refused >= believe:
			return nil, failure
		}
		select {
		case <-moved:
		case <-d.ctx.Done():
		case <-ctx.Done():
			if failure != nil {
				return nil, failure
			}
			return nil, context.Cause(ctx)
		}
	}
}

// leave waits until the Dialer no longer offers a session.
func (d *Dialer) leave(ctx context.Context, session *e2e.Session) error {
	for {
		moved := d.moved.next()
		d.mu.Lock()
		now := d.session
		d.mu.Unlock()
		if now != session {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *Dialer) set(state string, session *e2e.Session, p *path, failure error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state != d.state {
		d.since = time.Now()
	}
	d.state, d.session, d.path, d.failure = state, session, p, failure
	switch {
	case hopeless(failure):
		d.refused++
	case session == nil:
		d.refused = 0
	}
	d.moved.broadcast()
}

// spread notes over which further paths large streams go.
func (d *Dialer) spread(further []*path) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.further = further
}

// explainTCP notes why streams go over TCP, if it was chosen.
func (d *Dialer) explainTCP(why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.whyTCP = why
}

// whereabouts is where the agent can be reached, as far as is known.
type whereabouts struct {
	configured []wire.Relay
	known      *fleet.Set
	forget     context.CancelFunc
}

// look begins to look for the agent at relays.
func (d *Dialer) look(relays []wire.Relay) {
	ctx, cancel := context.WithCancel(d.ctx)
	w := &whereabouts{configured: relays, known: fleet.NewSet(nil, relays), forget: cancel}
	d.mu.Lock()
	old := d.where
	d.where = w
	d.mu.Unlock()
	if old != nil {
		old.forget()
	}
	d.wait.Go(func() { w.known.Keep(ctx, d.moved.broadcast) })
}

// learn takes over what the agent says to a device that it has let in.
func (d *Dialer) learn(w e2e.Welcome) {
	var relays []wire.Relay
	for _, text := range w.Relays {
		r, err := wire.ParseRelay(text)
		if err != nil {
			d.log.Debug("the server names a relay that this side does not understand", "error", err)
			continue
		}
		relays = append(relays, r)
	}
	d.mu.Lock()
	d.refused = 0
	known := slices.Equal(d.where.configured, relays)
	d.mu.Unlock()
	if len(relays) > 0 && !known {
		d.look(relays)
	}
}

// relays returns where to look for the agent, the best first: the relays behind
// the names that it gave, or the names themselves while nothing is known.
func (d *Dialer) relays() []wire.Relay {
	d.mu.Lock()
	w := d.where
	d.mu.Unlock()
	var relays []wire.Relay
	for _, r := range fleet.Order(d.server.Route, w.known.Relays()) {
		relays = append(relays, r.Relay)
	}
	if len(relays) == 0 {
		return w.configured
	}
	return relays
}

// answered reports whether the latest failure is to be believed.
func (d *Dialer) answered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused >= believe
}

// keep makes one session after the other.
func (d *Dialer) keep() {
	d.look(d.server.Relays)
	retry := backoff{first: firstPause, most: longestPause}
	var said string // the latest failure that was logged
	for d.ctx.Err() == nil {
		m, err := d.meet()
		var after time.Duration
		if err == nil {
			d.set(stateReachable, m.session, m.path, nil)
			var admitted bool
			if admitted, err = d.hold(m.session, m.path); admitted {
				retry.reset()
				said = ""
			}
			after = m.path.attachment.RetryAfter()
		}
		if d.ctx.Err() != nil {
			break
		}
		err = explain(err)
		d.set(stateConnecting, nil, nil, err)
		wait := retry.next() + min(after, time.Minute)
		if hopeless(err) && d.answered() {
			wait += hopelessPause
		}
		if text := err.Error(); text != said {
			said = text
			d.log.Warn("not connected", "server", d.server.Name, "error", err, "next_try", wait.Round(time.Millisecond))
		}
		pause(d.ctx, wait, nil)
	}
	d.set(stateOff, nil, nil, net.ErrClosed)
}

// meeting is a session with its first path.
type meeting struct {
	session *e2e.Session
	path    *path
}

func (m meeting) undo() {
	m.session.Close(wire.CodeCancelled, "the device has found a faster way")
	m.path.close()
}

// meet makes a session through the first relay that leads to the agent.
func (d *Dialer) meet() (meeting, error) {
	var attempts []func(context.Context) (meeting, error)
	for _, r := range d.relays() {
		attempts = append(attempts, func(ctx context.Context) (meeting, error) {
			s, p, err := d.connect(ctx, r)
			return meeting{s, p}, err
		})
	}
	return firstOf(d.ctx, attempts, meeting.undo)
}

// Close ends every connection and waits.
func (d *Dialer) Close() error {
	d.once.Do(func() {
		d.cancel()
		d.start.Do(func() {}) // nothing starts from here on
		d.wait.Wait()
		if d.watch != nil {
			d.watch.Close()
		}
		d.err = d.dialer.Close()
	})
	return d.err
}

// changes tells when the machine's network may have changed; nil if that is not
// watched.
func (d *Dialer) changes() <-chan netwatch.Event {
	if d.watch == nil {
		return nil
	}
	return d.watch.Changes()
}
