package hostile

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// device is a person's, with an application that asks and reads answers.
type device struct {
	w       *world
	n       byte
	id      *e2e.Identity
	home    *home
	session *e2e.Session // nil before connect

	mu   sync.Mutex
	lost error // why the session could not go on
}

// addDevice makes a device that its home knows.
func (w *world) addDevice(at *home) *device {
	d := &device{w: w, n: byte(len(w.devices) + 1), id: newIdentity(), home: at}
	at.mu.Lock()
	at.known[d.id.Pin()] = d.n
	at.mu.Unlock()
	w.devices = append(w.devices, d)
	return d
}

// attach connects to the relay.
func (d *device) attach(ctx context.Context) (*hop.Attachment, e2e.Stream, error) {
	w := d.w
	a, err := hop.Attach(ctx, w.relay.connect(w.relay.device), wire.Open{Route: d.home.route})
	if err != nil {
		return nil, nil, err
	}
	w.wg.Go(func() {
		select {
		case <-a.Leaving():
			w.leaves(a.Err())
		case <-w.ctx.Done():
		}
		<-w.ctx.Done()
		a.Close(wire.CodeNone, "")
	})
	st, err := a.Open(ctx)
	return a, st, err
}

func opener(a *hop.Attachment) func(context.Context) (e2e.Stream, error) {
	return func(ctx context.Context) (e2e.Stream, error) { return a.Open(ctx) }
}

// connect makes the device's session and waits until the agent has let it in.
func (d *device) connect() error {
	ctx, cancel := context.WithTimeout(d.w.ctx, patience)
	defer cancel()
	a, st, err := d.attach(ctx)
	if err != nil {
		return err
	}
	if d.session, err = e2e.Connect(ctx, st, e2e.ClientConfig{Identity: d.id, Server: d.home.id.Pin(), Open: opener(a)}); err != nil {
		return err
	}
	if _, err := d.session.Welcome(ctx); err != nil {
		return err
	}
	d.w.wg.Go(func() { d.keep(a, d.session.First()) })
	return nil
}

// keep goes on with the session elsewhere when its way is lost, as a product
// does, but gives up soon.
func (d *device) keep(a *hop.Attachment, l *e2e.Link) {
	for tries := 0; ; tries++ {
		select {
		case <-l.Done():
		case <-a.Leaving():
		case <-d.session.Done():
			return
		}
		next, link, err := d.join()
		if err == nil {
			l.Close()
			a.Close(wire.CodeNone, "")
			a, l = next, link
			continue
		}
		if d.session.Err() != nil {
			return
		}
		d.w.pause(retryAfter)
		if tries == attempts {
			d.mu.Lock()
			d.lost = err
			d.mu.Unlock()
			d.session.Close(wire.CodeTimeout, "the relay does not let the session go on")
			return
		}
	}
}

func (d *device) join() (*hop.Attachment, *e2e.Link, error) {
	ctx, cancel := context.WithTimeout(d.w.ctx, patience)
	defer cancel()
	a, st, err := d.attach(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, err := d.session.Join(ctx, st, opener(a))
	return a, l, err
}

// ask sends the request of a stream and reads the answer.
func (d *device) ask(stream byte) error {
	ctx, cancel := context.WithTimeout(d.w.ctx, d.w.readFor)
	defer cancel()
	c, err := d.session.OpenStream(ctx)
	if err != nil {
		return d.because(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d.w.readFor))
	name := [2]byte{d.n, stream}
	err = d.w.write(c, name, true)
	if err == nil {
		err = d.w.check(c, d.w.content(name, false), fmt.Sprintf("device %d", d.n))
	}
	if err != nil {
		c.Reset(wire.CodeCancelled)
	}
	return d.because(err)
}

// because prefers the reason for which the session was given up.
func (d *device) because(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && d.lost != nil {
		return d.lost
	}
	return err
}

// askAll asks on streams one after the other and returns the first error.
func (d *device) askAll(streams ...byte) (err error) {
	for _, n := range streams {
		if e := d.ask(n); err == nil {
			err = e
		}
	}
	return err
}
