package endpoint

import (
	"context"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// WithUrgency returns a context in which [Dialer.DialContext] opens connections
// of an urgency: wire.Playing without it. While a route has more to carry than it
// may, the relay lets its more urgent connections go first; what other servers
// get does not change. The relay learns this number of each connection.
//
// An http.Transport reuses connections, whatever the context of a request says:
// give downloads a Transport of their own.
func WithUrgency(ctx context.Context, u wire.Urgency) context.Context {
	return e2e.WithUrgency(ctx, u)
}
