package endpoint

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Times of a device's paths.
const (
	// silentFor is how long a relay may say nothing that was due before the
	// path is put to the test.
	silentFor = time.Second
	// probeLeast is how long an agent has to answer such a test, or three
	// round trips if those are longer.
	probeLeast = 500 * time.Millisecond
	// lookEvery is how often a path is looked at.
	lookEvery = 250 * time.Millisecond
	// returnEvery is how often a device on TCP tries QUIC again.
	returnEvery = 3 * time.Minute
	// longestStay is how long a relay may ask a path to stay while it leaves:
	// nothing else looks after the path meanwhile.
	longestStay = 15 * time.Second
	// steady is how long a path has to last not to count as another failure.
	steady = 5 * time.Second
	// returnWithin is how long such an attempt may take.
	returnWithin = 2 * time.Second
)

// protocolTCP is what transport.Session.Protocol says where UDP is blocked.
const protocolTCP = "TCP"

// holder keeps a session on a path that works. It belongs to one goroutine.
type holder struct {
	d       *Dialer
	session *e2e.Session
	path    *path     // nil while there is none
	since   time.Time // when path was taken
	chosen  bool      // path is over TCP because that is faster
	wide    *spreader
	limits  limitLog
	retry   backoff
	avoid   map[string]time.Time // relays, by placeOf, that said they are going away, until when
}

// hold keeps the session on a path until the session ends, and returns why, and
// whether the agent had admitted the device.
func (d *Dialer) hold(session *e2e.Session, p *path) (admitted bool, err error) {
	h := &holder{d: d, session: session, path: p, since: time.Now(), avoid: make(map[string]time.Time),
		retry: backoff{first: firstPause, most: longestPause}}
	h.wide = newSpreader(h, d.carriers)
	session.Prefer(p.link)
	defer h.end()
	if err := h.welcome(); err != nil {
		return false, err
	}
	return true, h.keep()
}

// keep returns why the session has ended.
func (h *holder) keep() error {
	d, session := h.d, h.session
	changes := d.changes()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	back := time.NewTicker(returnEvery)
	defer back.Stop()
	for {
		var trouble bool
		select {
		case <-session.Done():
			return session.Err()
		case <-d.ctx.Done():
			return context.Cause(d.ctx)
		case <-h.path.link.Done():
			trouble = true
		case <-h.path.attachment.Leaving():
			trouble = h.leaving()
		case <-h.path.attachment.News():
			h.limits.look(d.log, h.path.relay.Addr, h.path.attachment.Limits(), time.Now())
		case e := <-changes:
			d.log.Debug("looking whether the path still works", "reason", e.String())
			trouble = h.networkChanged()
		case <-look.C:
			if trouble = h.path.hop.Silent() >= silentFor && !h.path.works(d.ctx); !trouble {
				h.wide.look(time.Now())
			}
		case paths := <-h.wide.made():
			h.wide.try(paths, time.Now())
		case <-back.C:
			h.takeBack()
		}
		if trouble {
			if err := h.move(); err != nil {
				return err
			}
		}
	}
}

// placeOf tells apart relays that share a name.
func placeOf(r wire.Relay) string { return r.Addr + " " + r.IP.String() }

// end ends the session and its path.
func (h *holder) end() {
	h.session.Close(wire.CodeCancelled, "the device has closed the session")
	h.wide.end()
	if h.path != nil {
		h.path.close()
	}
}

// welcome waits for the agent's word that the device may come in.
func (h *holder) welcome() error {
	ctx, cancel := context.WithTimeout(h.d.ctx, dialPatience)
	defer cancel()
	w, err := h.session.Welcome(ctx)
	if err == nil {
		h.d.learn(w)
	}
	return err
}

// leaving waits until the relay wants the path to be gone, and reports whether
// another one has to be found.
func (h *holder) leaving() bool {
	a := h.path.attachment
	if a.Draining() {
		pause(h.d.ctx, min(a.RetryAfter(), longestStay), a.Done())
		h.avoid[placeOf(h.path.relay)] = time.Now().Add(time.Minute)
	}
	return true
}

// networkChanged moves the relay connection to the network that is there now,
// if it can, and reports whether the path works no more.
func (h *holder) networkChanged() bool {
	d := h.d
	d.dialer.NetworkChanged()
	h.wide.reset() // further connections stay on the old network
	ctx, cancel := context.WithTimeout(d.ctx, probeLeast)
	err := h.path.hop.Migrate(ctx)
	cancel()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		d.log.Debug("a connection could not be moved to the new network", "error", err)
	}
	if !h.path.works(d.ctx) {
		return true
	}
	h.chosen = false
	h.takeBack()
	return false
}

// takeBack goes back to QUIC from TCP if that works again.
func (h *holder) takeBack() {
	if h.path.hop.Protocol() != protocolTCP || h.chosen {
		return
	}
	ctx, cancel := context.WithTimeout(h.d.ctx, returnWithin) // nothing looks after the path meanwhile
	defer cancel()
	p, err := h.d.join(ctx, h.session, h.path.relay, h.d.dialer.DialQUIC)
	if err != nil {
		h.d.log.Debug("QUIC is still blocked", "relay", h.path.relay.Addr, "error", err)
		return
	}
	h.take(p)
}

// take makes p the path and gives the old one up.
func (h *holder) take(p *path) {
	old := h.path
	h.prefer(p, "")
	h.chosen = false
	h.wide.reset()
	if old != nil {
		old.close()
	}
}

// prefer makes p the path. why says why it is one over TCP.
func (h *holder) prefer(p *path, why string) {
	h.path, h.since, h.chosen = p, time.Now(), why != ""
	h.session.Prefer(p.link)
	h.d.set(stateReachable, h.session, p, nil)
	h.d.explainTCP(why)
}

// move finds another path. The old one is kept until there is one, unless the
// relay is going away and there is no other relay. It returns an error when
// the session has ended.
func (h *holder) move() error {
	d := h.d
	if time.Since(h.since) >= steady {
		h.retry.reset()
	} else if !pause(d.ctx, h.retry.next(), h.session.Done()) {
		return context.Cause(d.ctx)
	}
	if h.path.attachment.Draining() && h.alone() {
		h.path.close()
	}
	for {
		p, err := h.another()
		if err == nil {
			h.take(p)
			return nil
		}
		if h.session.Err() != nil {
			return h.session.Err()
		}
		d.set(stateConnecting, h.session, nil, explain(err))
		d.log.Debug("no other way to the server yet", "error", err)
		if h.path.link.Err() == nil && h.path.works(d.ctx) {
			d.set(stateReachable, h.session, h.path, nil) // it was only slow, or still leaves
			pause(d.ctx, h.retry.next(), h.path.link.Done())
			return nil
		}
		if codeOf(err) == wire.CodeVolumeLimit { // at every relay: readers need not wait for one
			h.session.Fail(err) // its readers explain it
			return err
		}
		if !pause(d.ctx, h.retry.next(), h.session.Done()) {
			return context.Cause(d.ctx)
		}
	}
}

// alone reports whether the relay is going away and there is no other.
func (h *holder) alone() bool {
	return !slices.ContainsFunc(h.d.relays(), func(r wire.Relay) bool { return !h.avoided(r) })
}

// avoided reports whether a relay has said lately that it is going away.
func (h *holder) avoided(r wire.Relay) bool { return time.Now().Before(h.avoid[placeOf(r)]) }

// another joins the session through the relays in their order, those that go
// away last.
func (h *holder) another() (*path, error) {
	var attempts, last []func(context.Context) (*path, error)
	for _, r := range h.d.relays() {
		f := func(ctx context.Context) (*path, error) { return h.d.join(ctx, h.session, r, h.d.dialer.Dial) }
		if h.avoided(r) {
			last = append(last, f)
		} else {
			attempts = append(attempts, f)
		}
	}
	return firstOf(h.d.ctx, append(attempts, last...), (*path).close)
}
