package hop

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Registration is an agent's session on which its route is reachable.
type Registration struct {
	*control
	instance wire.Instance
	until    atomic.Int64 // when the ticket ends, Unix seconds; 0: it does not
}

// Register makes the route of the session's client key reachable for the
// tokens, at most wire.MaxTokens, shows the relay the ticket, at most
// wire.MaxTicket bytes, and the relay's latest receipt, at most wire.MaxReceipt
// bytes, and waits for the relay's word. Other
// sessions of the same instance have the new tokens from then on, too; those of
// another instance are closed with wire.CodeReplaced. The session belongs to
// the registration from then on, also if Register fails. A refusal is a
// *wire.ClosedError.
func Register(ctx context.Context, sess transport.Session, reg wire.Register) (*Registration, error) {
	if err := check(reg); err != nil {
		sess.Close(wire.CodeNone, "")
		return nil, err
	}
	c, err := begin(ctx, sess, reg.Append(nil))
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	c.agent, c.receipt = true, reg.Receipt
	r := &Registration{control: c, instance: reg.Instance}
	err = within(ctx, c.st, func() error {
		if err := c.readWelcome(); err != nil {
			return err
		}
		return r.readRegistered(c.st)
	})
	if err != nil {
		return nil, fmt.Errorf("register: %w", c.fail(ctx, err))
	}
	c.watch(func() error { return nil })
	return r, nil
}

func check(reg wire.Register) error {
	if n := len(reg.Tokens); n > wire.MaxTokens {
		return fmt.Errorf("register: %d devices and invites, a relay takes at most %d", n, wire.MaxTokens)
	}
	if n := len(reg.Ticket); n > wire.MaxTicket {
		return fmt.Errorf("register: a ticket of %d bytes, a relay takes at most %d", n, wire.MaxTicket)
	}
	if n := len(reg.Receipt); n > wire.MaxReceipt {
		return fmt.Errorf("register: a receipt of %d bytes, a relay takes at most %d", n, wire.MaxReceipt)
	}
	return nil
}

func (r *Registration) readRegistered(st transport.Stream) error {
	p, err := expect(st, wire.FrameRegistered)
	if err != nil {
		return err
	}
	registered, err := wire.ParseRegistered(p)
	if err != nil {
		return err
	}
	var until int64
	if registered.Valid > 0 {
		until = time.Now().Unix() + int64(registered.Valid)
	}
	r.until.Store(until)
	return nil
}

// Until is when the ticket ends by which the relay admits the agent, to the
// second; zero if there is no end, or no ticket.
func (r *Registration) Until() time.Time {
	if until := r.until.Load(); until != 0 {
		return time.Unix(until, 0)
	}
	return time.Time{}
}

// Update replaces the tokens and the ticket of all the instance's sessions with
// the relay, as Register takes them, shows Receipt, and waits until the relay has
// them: from then on it lets no stream of another token in. A refused ticket ends the
// session. Streams that are open go on. A relay that does
// not answer as it should loses the session. If ctx ends first, which tokens
// the relay has is open. Of several calls to Update and Register for one
// instance at a time, the relay takes the last word that reaches it.
func (r *Registration) Update(ctx context.Context, tokens []wire.TokenHash, ticket string) error {
	reg := wire.Register{Instance: r.instance, Tokens: tokens, Ticket: ticket, Receipt: r.Receipt()}
	if err := check(reg); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	st, err := r.sess.OpenStream(soon)
	if err != nil {
		return fmt.Errorf("update tokens: %w", err)
	}
	defer st.Reset(wire.CodeNone) // frees the stream; the relay is done with it by then
	err = within(ctx, st, func() error {
		if _, err := st.Write(reg.Append(nil)); err != nil {
			return err
		}
		// The relay may have read the frame, and stopped reading, before this.
		err := st.CloseWrite()
		if reset, ok := errors.AsType[*wire.ResetError](err); err != nil && !(ok && reset.Code == wire.CodeNone) {
			return err
		}
		return r.readRegistered(st)
	})
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		err = r.fail(context.Background(), err)
	}
	return fmt.Errorf("update tokens: %w", err)
}

// Accept returns the next stream that the relay brings. The caller then calls
// ReadIncoming, off the accept loop.
func (r *Registration) Accept(ctx context.Context) (transport.Stream, error) {
	return r.sess.AcceptStream(ctx)
}

// ReadIncoming reads what the relay wrote before a device's bytes and returns
// the number that all streams of the same device's connection share. It waits
// at most Patience, and resets the stream on an error.
func ReadIncoming(st transport.Stream) (attachment uint64, err error) {
	st.SetReadDeadline(time.Now().Add(Patience))
	p, err := expect(st, wire.FrameIncoming)
	var in wire.Incoming
	if err == nil {
		in, err = wire.ParseIncoming(p)
	}
	if err != nil {
		st.Reset(wire.CodeRefused)
		return 0, fmt.Errorf("incoming stream: %w", err)
	}
	return in.Attachment, st.SetReadDeadline(time.Time{})
}
