// Package hop is an endpoint's side of the conversation with a relay that
// transport/wire/PROTOCOL.md describes: an agent registers its route and
// accepts the streams that the relay brings, a device attaches to a route and
// opens streams.
//
//	r, err := hop.Register(ctx, session, wire.Register{Instance: instance, Tokens: tokens})    // agent
//	st, err := r.Accept(ctx)
//	attachment, err := hop.ReadIncoming(st)
//
//	a, err := hop.Attach(ctx, session, wire.Open{Route: route, Token: token})    // device
//	st, err := a.Open(ctx)
//
// Nothing here waits for the relay where it need not: a device's first stream
// leaves in the flight that ends the hop's handshake.
package hop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Patience is how long either side waits for a frame that is due.
const Patience = 10 * time.Second

// control is the control stream of a session: the endpoint's first stream.
type control struct {
	sess transport.Session
	st   transport.Stream

	agent   bool          // it is an agent's
	leaving chan struct{} // closed by watch once the relay said GOODBYE or the session is over
	news    chan struct{} // see News; one value is enough
	watcher sync.WaitGroup

	mu      sync.Mutex
	goodbye *wire.Goodbye // what the relay said; nil before
	limits  []Limit       // in the order of their codes, one of each
	receipt string        // of an agent: the latest
}

// begin opens the control stream and says HELLO and what follows it. It does
// not wait for an answer. If it fails, the session is over.
func begin(ctx context.Context, sess transport.Session, then []byte) (*control, error) {
	st, err := sess.OpenStream(ctx)
	if err != nil {
		sess.Close(wire.CodeNone, "")
		return nil, err
	}
	c := &control{sess: sess, st: st, leaving: make(chan struct{}), news: make(chan struct{}, 1)}
	hello := wire.Hello{MinVersion: wire.MinVersion, MaxVersion: wire.MaxVersion}.Append(nil)
	err = within(ctx, st, func() error {
		_, err := st.Write(append(hello, then...))
		return err
	})
	if err != nil {
		return nil, c.fail(ctx, err)
	}
	return c, nil
}

// within runs f, whose reads and writes on st end after Patience, or at once
// and with ctx's error when ctx ends.
func within(ctx context.Context, st transport.Stream, f func() error) error {
	st.SetDeadline(time.Now().Add(Patience))
	stop := context.AfterFunc(ctx, func() { st.SetDeadline(time.Now()) })
	err := f()
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return st.SetDeadline(time.Time{})
}

// expect reads the next frame, which must be of type t.
func expect(st transport.Stream, t wire.FrameType) (payload []byte, err error) {
	f, err := wire.ReadFrame(st)
	if err != nil {
		return nil, err
	}
	if f.Type != t {
		return nil, fmt.Errorf("%w: type 0x%02x where 0x%02x is due", wire.ErrMalformed, uint8(f.Type), uint8(t))
	}
	return f.Payload, nil
}

func (c *control) readWelcome() error {
	p, err := expect(c.st, wire.FrameWelcome)
	if err != nil {
		return err
	}
	w, err := wire.ParseWelcome(p)
	if err == nil && (w.Version < wire.MinVersion || w.Version > wire.MaxVersion) {
		err = fmt.Errorf("%w: WELCOME with version %d", wire.ErrMalformed, w.Version)
	}
	return err
}

// watch hears what the relay says, after what greet reads and up to its GOODBYE,
// in a goroutine that Close waits for. What breaks the protocol ends the session.
func (c *control) watch(greet func() error) {
	c.watcher.Go(func() {
		defer close(c.leaving)
		err := greet()
		var g *wire.Goodbye
		for err == nil && g == nil {
			g, err = c.hear()
		}
		if err != nil {
			c.fail(context.Background(), err)
			return
		}
		c.mu.Lock()
		c.goodbye = g
		c.mu.Unlock()
		// Until the session is closed streams go on.
	})
}

// fail ends a session on which an exchange within ctx broke with err, unless
// it is over already. It returns why the session is over: a *wire.ClosedError,
// a *transport.LostError, or ctx's error.
func (c *control) fail(ctx context.Context, err error) error {
	code, text := wire.CodeProtocol, "the relay ended a stream before its frame"
	switch {
	case ctx.Err() != nil:
		c.sess.Close(wire.CodeNone, "")
		return ctx.Err()
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
		code, text = wire.CodeOf(err), err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		code, text = wire.CodeTimeout, fmt.Sprintf("the relay did not answer within %v", Patience)
	}
	c.sess.Close(code, text)
	<-c.sess.Done()
	return c.sess.Err()
}

// Leaving is closed once the relay said goodbye or the session is over.
// Streams that are open may go on until Done.
func (c *control) Leaving() <-chan struct{} { return c.leaving }

// Done is closed when the session is over.
func (c *control) Done() <-chan struct{} { return c.sess.Done() }

// Err says why the session is over, or about to be after a goodbye; nil before
// Leaving is closed.
func (c *control) Err() error {
	c.mu.Lock()
	g := c.goodbye
	c.mu.Unlock()
	if g != nil {
		return &wire.ClosedError{Code: g.Code, Text: g.Text, Remote: true}
	}
	return c.sess.Err()
}

// Draining reports whether the goodbye asks the endpoint to move: the relay is
// being emptied and serves the session, with new streams, until the endpoint
// closes it or the relay's time for that is up. After any other goodbye the
// relay closes the session within a moment.
func (c *control) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.goodbye != nil && c.goodbye.Code == wire.CodeDraining
}

// RetryAfter is how long the relay asked the endpoint to stay away in its
// goodbye, or when Draining how long to stay; 0 if it said nothing. It may be
// as long as 49 days: it is the relay's wish and not to be trusted.
func (c *control) RetryAfter() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goodbye == nil {
		return 0
	}
	return time.Duration(c.goodbye.RetryAfter) * time.Millisecond
}

// RTT is the smoothed round trip time to the relay.
func (c *control) RTT() time.Duration { return c.sess.RTT() }

// Close ends the session and waits until nothing of it runs.
func (c *control) Close(code wire.Code, text string) {
	c.sess.Close(code, text)
	c.watcher.Wait()
}
