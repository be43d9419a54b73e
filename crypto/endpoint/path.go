package endpoint

import (
	"context"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// path is a device's way to the agent: an attachment to a relay and an
// end-to-end session through it.
type path struct {
	relay      wire.Relay
	attachment *hop.Attachment
	session    *e2e.Session
	admitted   bool // the agent said WELCOME; written by hold
}

// connect makes a path. It returns as soon as the device may send, which is
// before the agent has admitted it.
func (d *Dialer) connect(ctx context.Context, relay wire.Relay) (*path, error) {
	attachment, err := attach(ctx, d.dialer, relay, wire.Open{Route: d.server.Route, Token: d.server.Token})
	if err != nil {
		return nil, err
	}
	open := func(ctx context.Context) (e2e.Stream, error) { return attachment.Open(ctx) }
	first, err := open(ctx)
	if err != nil {
		attachment.Close(wire.CodeCancelled, "")
		return nil, err
	}
	session, err := e2e.Connect(ctx, first, e2e.ClientConfig{Identity: d.id, Server: d.server.Pin, Open: open, Log: d.log})
	if err != nil {
		attachment.Close(wire.CodeCancelled, "")
		return nil, fmt.Errorf("through relay %s: %w", relay.Addr, err)
	}
	return &path{relay: relay, attachment: attachment, session: session}, nil
}

// attach dials a relay for a route.
func attach(ctx context.Context, dialer *transport.Dialer, relay wire.Relay, to wire.Open) (*hop.Attachment, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	sess, err := dialer.Dial(ctx, relay, nil)
	if err != nil {
		return nil, err
	}
	return hop.Attach(ctx, sess, to)
}

// hold waits for the end of the path, ends what is left of it, and returns why.
func (p *path) hold(ctx context.Context) error {
	defer func() {
		p.session.Close(wire.CodeCancelled, "the device has closed the session")
		p.attachment.Close(wire.CodeNone, "")
	}()
	welcome, cancel := context.WithTimeout(ctx, dialPatience)
	_, err := p.session.Welcome(welcome)
	cancel()
	if err != nil {
		return err
	}
	p.admitted = true
	select {
	case <-p.session.Done():
		return p.session.Err()
	case <-p.attachment.Leaving():
		// After a goodbye what is in flight may end.
		select {
		case <-p.attachment.Done():
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
		return p.attachment.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
