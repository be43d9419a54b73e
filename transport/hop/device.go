package hop

import (
	"context"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Attachment is a device's session with a relay, for one route.
type Attachment struct {
	*control
	to wire.Open
}

// Attach says HELLO and returns at once: whether the relay knows the route and
// takes the token shows on the first stream. The session belongs to the
// attachment from then on, also if Attach fails.
func Attach(ctx context.Context, sess transport.Session, to wire.Open) (*Attachment, error) {
	c, err := begin(ctx, sess, nil)
	if err != nil {
		return nil, fmt.Errorf("attach: %w", err)
	}
	c.watch(func() error { return within(context.Background(), c.st, c.readWelcome) })
	return &Attachment{control: c, to: to}, nil
}

// Open opens a stream to the agent, of the urgency that Attach was given. A
// refusal by the relay or the agent comes as *wire.ResetError from the stream's
// Read.
func (a *Attachment) Open(ctx context.Context) (transport.Stream, error) {
	return a.OpenUrgent(ctx, a.to.Urgency)
}

// OpenUrgent is Open with an urgency of the stream's own, which the relay sees.
func (a *Attachment) OpenUrgent(ctx context.Context, urgency wire.Urgency) (transport.Stream, error) {
	st, err := a.sess.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	open := a.to
	open.Urgency = urgency
	st.SetWriteDeadline(time.Now().Add(Patience))
	if _, err := st.Write(open.Append(nil)); err != nil {
		st.Reset(wire.CodeCancelled)
		return nil, err
	}
	return st, st.SetWriteDeadline(time.Time{})
}
