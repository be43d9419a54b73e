package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
)

// owner does what the owner's commands ask, inside a running `share` or on the
// files alone.
type owner struct {
	home  *pair.Home
	agent *endpoint.Agent // nil: `share` is not running
	asks  *approvals      // nil: as agent
	to    *url.URL        // the media server; nil: as agent
}

// device is an allowed device as `devices list` prints it.
type device struct {
	Name  string    `json:"name"`
	Pin   string    `json:"pin"`
	Added time.Time `json:"added"`
	Seen  time.Time `json:"seen,omitzero"` // to the hour
}

// invitation is a new invite.
type invitation struct {
	Text    string    `json:"text"`
	Expires time.Time `json:"expires"`
}

// do performs a request. Every change is on disk when it returns, and what a
// device may no longer do has ended.
func (o *owner) do(req request) (reply, error) {
	switch req.Do {
	case doStatus:
		return reply{Share: o.status()}, nil
	case doDoctor:
		return reply{Doctor: o.examined()}, nil
	case doVerify:
		return o.verify()
	case doDevices:
		return reply{Devices: o.devices()}, nil
	case doRename:
		return reply{}, o.home.Rename(req.Name, req.NewName)
	case doRevoke:
		return reply{}, o.change(o.home.Revoke(req.Name))
	case doOn, doOff:
		return reply{}, o.change(o.home.SetEnabled(req.Do == doOn))
	case doInvite:
		if req.Approve && o.agent == nil {
			return reply{}, errors.New("nobody could ask you: --approve works while `blindlink share` runs, start it first")
		}
		inv, err := o.home.NewInvite(req.Name, req.TTL, req.Approve)
		if err != nil {
			return reply{}, err
		}
		return reply{Invite: &invitation{inv.Text(), inv.Expires}}, nil
	}
	return reply{}, fmt.Errorf("the running blindlink does not know %q: is it of an older version? Restart it", req.Do)
}

func (o *owner) change(err error) error {
	if o.agent != nil {
		o.agent.Enforce() // also after an error: the change may be in force
	}
	return err
}

func (o *owner) devices() []device {
	all := []device{}
	for _, d := range o.home.Devices() {
		all = append(all, device{d.Name, d.Pin.String(), d.Added, d.Seen})
	}
	return all
}

// serve answers one command on the socket of a running `share`.
func (o *owner) serve(ctx context.Context, d *dialogue, req request) {
	if req.Do == doInvite && req.Approve {
		o.serveApproval(ctx, d, req)
		return
	}
	r, err := o.do(req)
	d.finish(r, err)
}

// askOwner performs a request in the running `share` that holds dir, or on the
// files if none does. It reports which.
func askOwner(dir string, req request) (r reply, running bool, err error) {
	if err := mustBeHome(dir); err != nil {
		return reply{}, false, err
	}
	// A share that is starting holds the files before it listens.
	for end := time.Now().Add(controlTime); ; {
		d, err := dialControl(dir, controlName)
		if err == nil {
			defer d.Close()
			r, err := exchange(d, req)
			return r, true, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return reply{}, false, err
		}
		home, err := pair.OpenHome(dir)
		if err == nil {
			defer home.Close()
			r, err := (&owner{home: home}).do(req)
			return r, false, err
		}
		if !errors.Is(err, pair.ErrInUse) || time.Now().After(end) {
			return reply{}, false, err
		}
	}
}

// exchange sends a request and receives its (first) reply.
func exchange(d *dialogue, req request) (reply, error) {
	var r reply
	err := d.send(req)
	if err == nil {
		err = d.receive(&r, 2*controlTime)
	}
	if err != nil {
		return reply{}, fmt.Errorf("the running blindlink does not answer, is it stopping? Try again (%w)", err)
	}
	if r.Error != "" {
		return reply{}, errors.New(r.Error)
	}
	return r, nil
}
