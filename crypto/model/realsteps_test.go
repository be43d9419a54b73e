package model

import (
	"context"
	"testing/synctest"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// settle lets everything happen that takes no time, and what soon follows.
func settle() {
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

// take takes a step of the model with the real packages.
func (r *real) take(st step, was state) {
	r.t.Helper()
	d := r.devices[st.d]
	switch st.action {
	case newInvite:
		inv, err := r.home.NewInvite("", 0, true)
		if err != nil {
			r.t.Fatal(err)
		}
		r.invite = &inv
	case revokeFile:
		for _, l := range r.home.Devices() {
			if l.Pin == d.id.Pin() {
				if err := r.home.Revoke(l.Name); err != nil {
					r.t.Fatal(err)
				}
			}
		}
	case revokeSessions:
		if r.broken != noRevoke {
			r.server.Revoke(d.id.Pin())
		}
	case offFile, turnOn:
		if err := r.home.SetEnabled(st.action == turnOn); err != nil {
			r.t.Fatal(err)
		}
	case offSessions:
		if r.broken != noSessions {
			r.server.CloseSessions(wire.CodeOff, "off")
		}
	case killAgent:
		r.killAgent()
		r.start()
	case killRelay:
		for _, d := range r.devices {
			r.cut(d)
		}
	case expire:
		time.Sleep(70 * time.Second)
		r.failures = 0
	case pairBegin:
		r.pair(d)
	case connect:
		r.arm(d)
		st, opener := r.attach(d)
		s, err := e2e.Connect(context.Background(), st, e2e.ClientConfig{Identity: d.id, Server: r.id.Pin(), Open: opener})
		if err != nil {
			r.t.Fatal(err)
		}
		d.s, d.link, d.attachment = s, s.First(), r.attachments
		synctest.Wait()
		d.begun = st.sent()
	case join:
		r.arm(d)
		st, opener := r.attach(d)
		s := d.s
		d.link, d.attachment = nil, r.attachments
		r.wg.Go(func() {
			if l, err := s.Join(context.Background(), st, opener); err == nil {
				d.link = l
			}
		})
		synctest.Wait()
		d.begun = st.sent()
		if d.s.Err() != nil { // the agent did not have to ask
			r.gate(d.id.Pin())
			d.call = nil
		}
	case open:
		r.arm(d)
		c, err := d.s.OpenStream(context.Background())
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := c.Write(nil); err != nil {
			r.t.Fatal(err)
		}
		d.conn, d.served, d.first = r.listen(c), nil, d.hops[len(d.hops)-1]
		d.opened++
	case lookup:
		close(d.call.look)
	case pairEnd, finish:
		d.release()
		synctest.Wait()
		time.Sleep(time.Second) // in which streams resume
	case say:
		for _, c := range []*talk{d.conn, d.served} {
			if _, err := c.Write([]byte{was.devices[st.d].said}); err != nil {
				r.t.Errorf("write: %v", err)
			}
		}
	case drop:
		r.cut(d)
	case killDevice:
		r.cut(d)
		if d.s != nil {
			d.s.Close(wire.CodeNone, "")
			d.s = nil
		}
	case replayStream:
		r.dial(d.attachment).Write(d.first.sent())
	case replayLink:
		if d.begun != nil {
			r.attachments++
			h := r.dial(r.attachments)
			h.Write(d.begun)
			settle()
			h.Reset(wire.CodeDeviceGone)
		}
	case stranger:
		r.stranger()
	}
	settle()
	for i := range r.devices { // what the agent holds up without a device is let go by its end
		if d := r.devices[i]; was.devices[i].call.kind == pairing && len(d.hops) == 0 {
			d.call = nil
		}
	}
}

func (r *real) killAgent() {
	for _, d := range r.devices {
		r.cut(d)
	}
	settle()
	for _, d := range r.devices {
		d.release()
	}
	r.server.Close()
	if err := r.home.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// pair has a device show the latest invite. The agent waits where the owner is
// asked.
func (r *real) pair(d *realDevice) {
	if r.invite == nil {
		return
	}
	r.arm(d)
	st, _ := r.attach(d)
	c, err := e2e.ConnectPairing(context.Background(), st, e2e.ClientConfig{Identity: d.id, Server: r.id.Pin()})
	if err != nil {
		r.t.Fatal(err)
	}
	refused := make(chan struct{}) // closed when it is over
	inv := *r.invite
	r.wg.Go(func() {
		defer close(refused)
		pair.Request(context.Background(), c, inv, "a device")
		c.Close()
	})
	synctest.Wait()
	select {
	case <-refused:
		r.gate(d.id.Pin())
		d.call = nil
		r.failures++
	default:
	}
}

// stranger connects with a key that is on no list.
func (r *real) stranger() {
	r.attachments++
	at := r.attachments
	opener := func(context.Context) (e2e.Stream, error) { return r.dial(at), nil }
	st, _ := opener(context.Background())
	s, err := e2e.Connect(context.Background(), st, e2e.ClientConfig{Identity: newID(r.t), Server: r.id.Pin(), Open: opener})
	if err != nil {
		r.t.Fatal(err)
	}
	settle()
	if s.Err() == nil && r.broken == none {
		r.t.Error("a stranger has a session")
	}
	s.Close(wire.CodeNone, "")
}
