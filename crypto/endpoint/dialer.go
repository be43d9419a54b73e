package endpoint

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
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
	// Socket carries all connections to relays. The Dialer owns it. Nil: a
	// UDP socket of its own.
	Socket net.PacketConn
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
	id     *e2e.Identity
	server pair.Server
	log    *slog.Logger
	dialer *transport.Dialer

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
	path    *path // nil while there is none
	refused int   // hopeless failures in a row
	failure error // why the latest attempt failed or the latest path ended; nil while there is a path
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
	d := &Dialer{id: id, server: cfg.Server, log: cfg.Log, state: stateConnecting, since: time.Now()}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.dialer, err = transport.NewDialer(cfg.Socket); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// DialContext opens a sealed connection to the media server. It takes no round
// trip once the session is there. It fits http.Transport: network and addr are
// ignored, there is one place to go. While the relay or the server is away it
// waits up to 15 s, or until ctx ends, for them to return; a refusal is
// returned at once. The connection is an *e2e.Conn.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialWait, errNoPath)
	defer cancel()
	for {
		p, err := d.await(ctx)
		if err != nil {
			return nil, err
		}
		c, err := p.session.OpenStream(ctx)
		if err == nil {
			return c, nil
		}
		if errors.Is(err, e2e.ErrTooManyStreams) || ctx.Err() != nil {
			return nil, err
		}
		p.session.Close(wire.CodeCancelled, "the path to the relay is broken")
		if err := d.leave(ctx, p); err != nil {
			return nil, err
		}
	}
}

// errNoPath is the cause of a wait that took too long.
var errNoPath = errors.New("no connection to the server")

// Connect waits until the server has admitted this device, or says why not.
// It waits as long as ctx lets it, unless the server or the relay refuses.
func (d *Dialer) Connect(ctx context.Context) error {
	for {
		p, err := d.await(ctx)
		if err != nil {
			return err
		}
		_, err = p.session.Welcome(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err := d.leave(ctx, p); err != nil {
			return err
		}
	}
}

// await returns the path, and waits for one. It gives up with ctx, or with a
// failure that waiting cannot mend.
func (d *Dialer) await(ctx context.Context) (*path, error) {
	d.start.Do(func() { d.wait.Go(d.keep) })
	for {
		moved := d.moved.next()
		d.mu.Lock()
		p, failure, refused := d.path, d.failure, d.refused
		d.mu.Unlock()
		switch {
		case d.ctx.Err() != nil:
			return nil, net.ErrClosed
		case p != nil:
			return p, nil
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

// leave waits until the Dialer no longer offers p.
func (d *Dialer) leave(ctx context.Context, p *path) error {
	for {
		moved := d.moved.next()
		d.mu.Lock()
		now := d.path
		d.mu.Unlock()
		if now != p {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *Dialer) set(state string, p *path, failure error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state != d.state {
		d.since = time.Now()
	}
	d.state, d.path, d.failure = state, p, failure
	switch {
	case hopeless(failure):
		d.refused++
	case p == nil:
		d.refused = 0
	}
	d.moved.broadcast()
}

// answered reports whether the latest failure is to be believed.
func (d *Dialer) answered() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused >= believe
}

// keep makes one path after the other.
func (d *Dialer) keep() {
	retry := backoff{first: firstPause, most: longestPause}
	var said string // the latest failure that was logged
	for i := 0; d.ctx.Err() == nil; i++ {
		p, err := d.connect(d.ctx, d.server.Relays[i%len(d.server.Relays)])
		var after time.Duration
		if err == nil {
			d.set(stateReachable, p, nil)
			if err = p.hold(d.ctx); p.admitted {
				retry.reset()
				said = ""
			}
			after = p.attachment.RetryAfter()
		}
		if d.ctx.Err() != nil {
			break
		}
		err = explain(err)
		d.set(stateConnecting, nil, err)
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
	d.set(stateOff, nil, net.ErrClosed)
}

// Close ends every connection and waits.
func (d *Dialer) Close() error {
	d.once.Do(func() {
		d.cancel()
		d.start.Do(func() {}) // nothing starts from here on
		d.wait.Wait()
		d.err = d.dialer.Close()
	})
	return d.err
}
