package endpoint

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// path is a device's way to the agent through one relay connection: the
// attachment, and the session's link over it.
type path struct {
	relay      wire.Relay
	hop        transport.Session
	attachment *hop.Attachment
	link       *e2e.Link
}

// open opens a stream of the relay connection, of the urgency that ctx has.
func (p *path) open(ctx context.Context) (e2e.Stream, error) {
	return p.attachment.OpenUrgent(ctx, e2e.UrgencyOf(ctx))
}

// connect makes a path with a session of its own. It returns as soon as the
// device may send, which is before the agent has admitted it.
func (d *Dialer) connect(ctx context.Context, relay wire.Relay) (*e2e.Session, *path, error) {
	p, first, err := d.attach(ctx, relay, d.dialer.Dial)
	if err != nil {
		return nil, nil, err
	}
	session, err := e2e.Connect(ctx, first, e2e.ClientConfig{Identity: d.id, Server: d.server.Pin, Open: p.open, Log: d.log})
	if err != nil {
		p.close()
		return nil, nil, fmt.Errorf("through relay %s: %w", relay.Addr, err)
	}
	p.link = session.First()
	return session, p, nil
}

// dialFunc makes a relay connection.
type dialFunc func(context.Context, wire.Relay, *tls.Certificate) (transport.Session, error)

// join makes a further path of a session.
func (d *Dialer) join(ctx context.Context, s *e2e.Session, relay wire.Relay, dial dialFunc) (*path, error) {
	p, first, err := d.attach(ctx, relay, dial)
	if err != nil {
		return nil, err
	}
	if p.link, err = s.Join(ctx, first, p.open); err != nil {
		p.close()
		return nil, fmt.Errorf("through relay %s: %w", relay.Addr, err)
	}
	return p, nil
}

// attach dials a relay for the server's route and opens a first stream.
func (d *Dialer) attach(ctx context.Context, relay wire.Relay, dial dialFunc) (*path, e2e.Stream, error) {
	p := &path{relay: relay}
	var err error
	if p.hop, p.attachment, err = attach(ctx, dial, relay, wire.Open{Route: d.server.Route, Token: d.server.Token}); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	first, err := p.attachment.Open(ctx)
	if err != nil {
		p.close()
		return nil, nil, err
	}
	return p, first, nil
}

// attach dials a relay for a route.
func attach(ctx context.Context, dial dialFunc, relay wire.Relay, to wire.Open) (transport.Session, *hop.Attachment, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	sess, err := dial(ctx, relay, nil)
	if err != nil {
		return nil, nil, err
	}
	a, err := hop.Attach(ctx, sess, to)
	return sess, a, err
}

// close ends the path. Streams that it carries go on over another one.
func (p *path) close() {
	if p.link != nil {
		p.link.Close()
	}
	p.attachment.Close(wire.CodeNone, "")
}

// works asks the agent for a sign of life over the path.
func (p *path) works(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, max(probeLeast, 3*p.link.RTT(), 6*p.hop.RTT()))
	defer cancel()
	_, err := p.link.Probe(ctx)
	return err == nil
}
