package e2e

import (
	"context"

	"github.com/blindrelay/blindrelay/transport/wire"
)

type urgencyKey struct{}

// WithUrgency returns a context in which [Session.OpenStream] opens streams of
// an urgency, which all their carriers have. The relay sees it.
func WithUrgency(ctx context.Context, u wire.Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// UrgencyOf returns the urgency that a stream opened in ctx has: that of
// [WithUrgency], else wire.Playing.
func UrgencyOf(ctx context.Context) wire.Urgency {
	u, _ := ctx.Value(urgencyKey{}).(wire.Urgency)
	return u
}
