package hostile

import (
	"context"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// connection is one side of a connection in memory between an endpoint and the
// relay. It has what package hop asks of a session, and nothing else.
type connection struct {
	transport.Session // nil

	other *connection
	// accepted is sent to by OpenStream of the other side and never closed; its
	// capacity is more than any attack opens at a time.
	accepted chan *end
	done     chan struct{} // closed by over

	mu   sync.Mutex
	ends []*end
	err  error
}

func newConnection() (endpoint, relay *connection) {
	side := func() *connection {
		return &connection{accepted: make(chan *end, 256), done: make(chan struct{})}
	}
	endpoint, relay = side(), side()
	endpoint.other, relay.other = relay, endpoint
	return endpoint, relay
}

func (c *connection) OpenStream(ctx context.Context) (transport.Stream, error) {
	a, b := newStream()
	if err := c.add(a); err != nil {
		return nil, err
	}
	if err := c.other.add(b); err != nil {
		return nil, err
	}
	select {
	case c.other.accepted <- b:
		return a, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *connection) add(e *end) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.ends = append(c.ends, e)
	}
	return c.err
}

func (c *connection) AcceptStream(ctx context.Context) (transport.Stream, error) {
	st, err := c.accept(ctx)
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (c *connection) accept(ctx context.Context) (*end, error) {
	select {
	case e := <-c.accepted:
		return e, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *connection) Close(code wire.Code, text string) {
	c.over(&wire.ClosedError{Code: code, Text: text})
	c.other.over(&wire.ClosedError{Code: code, Text: text, Remote: true})
}

func (c *connection) over(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.done)
	for _, e := range c.ends {
		e.lose(err)
	}
}

func (c *connection) Done() <-chan struct{} { return c.done }

func (c *connection) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *connection) RTT() time.Duration { return 0 }
