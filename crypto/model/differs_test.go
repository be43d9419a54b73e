package model

import (
	"context"
	"fmt"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// differs says in what the real packages are not in the model's state, or "".
func (r *real) differs(s state) string {
	sessions := make(map[e2e.Pin]int)
	for _, i := range r.server.Sessions() {
		sessions[i.Device]++
	}
	listed := 0
	for i, d := range r.devices {
		v := &s.devices[i]
		if v.listed {
			listed++
		}
		say := func(format string, args ...any) string {
			return fmt.Sprintf("device %d ", i) + fmt.Sprintf(format, args...)
		}
		want := int(v.ghosts)
		if v.here {
			want++
		}
		if n := sessions[d.id.Pin()]; n != want {
			return say("has %d sessions at the agent, want %d", n, want)
		}
		if _, ok := r.home.Admit(d.id.Pin()); ok != (v.listed && s.on) {
			return say("is admitted: %v", ok)
		}
		if has := d.s != nil && d.s.Err() == nil; has != v.has {
			return say("has a session: %v", has)
		}
		if linked := d.linked(); linked != v.linked {
			return say("has a link: %v", linked)
		}
		if d.accepted > d.opened {
			return say("opened %d streams, and the agent accepted %d", d.opened, d.accepted)
		}
		if !v.stream && d.conn != nil {
			if _, err := d.conn.Write(nil); err == nil {
				return say("has a stream")
			}
		}
		if !v.stream || !v.here || v.call.kind == opening {
			continue
		}
		for end, c := range map[string]*talk{"device": d.conn, "agent": d.served} {
			if c == nil {
				return say("has no stream at the %s", end)
			}
			got := c.read()
			for j, b := range got {
				if int(b) != j {
					return say("reads %v at the %s", got, end)
				}
			}
			if len(got) != int(v.got) {
				return say("has read %d records at the %s, want %d", len(got), end, v.got)
			}
		}
	}
	if s.on {
		if s.invite {
			listed++
		}
		if n := len(r.home.Tokens()); n != listed {
			return fmt.Sprintf("%d devices and invites are open, want %d", n, listed)
		}
	}
	return ""
}

// linked reports whether the agent answers over the device's latest link.
func (d *realDevice) linked() bool {
	if d.s == nil || d.link == nil || d.link.Err() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := d.s.Welcome(ctx); err != nil {
		return false
	}
	_, err := d.link.Probe(ctx)
	return err == nil
}
