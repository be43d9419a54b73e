package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
)

// approvals brings the agent's questions to the owner, who waits for them in
// `invite --approve`. One owner waits at a time.
type approvals struct {
	mu   sync.Mutex
	seat *seat // nil: nobody waits
}

// seat is where an owner waits.
type seat struct {
	questions chan question // sent to by approve; closed by nobody; no room: the owner takes one at a time
	left      chan struct{} // closed when the owner has gone
}

type question struct {
	ctx         context.Context // ends when the answer no longer matters
	name, words string
	answer      chan bool // room for the one answer
}

// approve is the agent's pair.Approver. While no owner waits the answer is no.
func (a *approvals) approve(ctx context.Context, name, words string) bool {
	a.mu.Lock()
	s := a.seat
	a.mu.Unlock()
	if s == nil {
		return false
	}
	q := question{ctx, name, words, make(chan bool, 1)}
	select {
	case s.questions <- q:
	case <-s.left:
		return false
	case <-ctx.Done():
		return false
	}
	select {
	case yes := <-q.answer:
		return yes
	case <-s.left:
		return false
	case <-ctx.Done():
		return false
	}
}

func (a *approvals) sit() (*seat, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seat != nil {
		return nil, errors.New("another `blindlink invite --approve` waits for a device already: end it first")
	}
	a.seat = &seat{make(chan question), make(chan struct{})}
	return a.seat, nil
}

func (a *approvals) leave(s *seat) {
	a.mu.Lock()
	a.seat = nil
	a.mu.Unlock()
	close(s.left)
}

// serveApproval answers `invite --approve`. It has a goroutine of its own that
// hears the owner.
func (o *owner) serveApproval(ctx context.Context, d *dialogue, req request) {
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan bool) // sent to by listen, which closes it when the owner has gone
	go listen(ctx, d, answers)
	r, err := o.inviteAndAsk(ctx, d, req, answers)
	d.finish(r, err)
	cancel()
	d.Close()
	for range answers { // until listen has ended
	}
}

// inviteAndAsk makes an invite and stays with the owner until a device has
// paired with it, was refused, or the invite has expired. If the owner leaves,
// the invite is worth nothing.
func (o *owner) inviteAndAsk(ctx context.Context, d *dialogue, req request, answers <-chan bool) (reply, error) {
	s, err := o.asks.sit()
	if err != nil {
		return reply{}, err
	}
	defer o.asks.leave(s)
	r, err := o.do(req)
	if err != nil {
		return reply{}, err
	}
	if err := d.send(r); err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithDeadline(ctx, r.Invite.Expires)
	defer cancel()
	for {
		select {
		case q := <-s.questions:
			done, r, err := o.ask(d, q, answers)
			if done || err != nil {
				return r, err
			}
		case _, here := <-answers:
			if !here {
				return reply{}, errors.New("the owner has gone")
			}
		case <-ctx.Done():
			return reply{}, errors.New("the invite has expired and no device came: make a new one")
		}
	}
}

func listen(ctx context.Context, d *dialogue, answers chan<- bool) {
	defer close(answers)
	for {
		var a answer
		if d.receive(&a, 0) != nil {
			return
		}
		select {
		case answers <- a.Yes:
		case <-ctx.Done():
			return
		}
	}
}

// ask puts one question to the owner. It is done unless the device has left.
func (o *owner) ask(d *dialogue, q question, answers <-chan bool) (done bool, r reply, err error) {
	before := o.home.Devices()
	changed := o.home.Changed()
	if err := d.send(reply{Ask: &questionReply{q.name, q.words}}); err != nil {
		return true, reply{}, err
	}
	select {
	case yes, here := <-answers:
		q.answer <- yes && here
		if !yes {
			return true, reply{}, errors.New("the device was not let in and its invite is withdrawn")
		}
	case <-q.ctx.Done():
		return false, reply{}, d.send(reply{Left: true})
	}
	select {
	case <-changed:
		return true, reply{Paired: newName(before, o.home.Devices(), q.name)}, nil
	case <-time.After(controlTime):
		return true, reply{}, errors.New("the device was approved but did not finish: it may have left; try again with a new invite")
	}
}

// newName returns the name under which a device that called itself name is on
// the list now: another device may have had the name.
func newName(before, after []pair.Device, name string) string {
	var known []e2e.Pin
	for _, d := range before {
		known = append(known, d.Pin)
	}
	for _, d := range after {
		if !slices.Contains(known, d.Pin) && strings.HasPrefix(d.Name, name) {
			return d.Name
		}
	}
	return name
}
