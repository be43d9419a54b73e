package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

type doctorCmd struct {
	State string `placeholder:"DIR" help:"State directory of share or open. Default: those of both."`
	JSON  bool   `help:"Print JSON."`
}

// doctorTime bounds an examination.
const doctorTime = 20 * time.Second

// homeCase is what the examination of a home needs to know. It passes through
// the socket in the state directory, and is never printed.
type homeCase struct {
	Share *shareStatus `json:"share"`
	// Token is that of a paired device: with it the line is measured on a
	// connection of its own, and the agent's is left alone. All zero without a
	// device.
	Token wire.Token `json:"token"`
	To    string     `json:"to,omitempty"` // the media server, while share runs
}

func (o *owner) examined() *homeCase {
	c := &homeCase{Share: o.status()}
	if all := o.home.Devices(); len(all) > 0 {
		c.Token = o.home.Token(all[0].Pin)
	}
	if o.to != nil {
		c.To = o.to.String()
	}
	return c
}

// side is one end that is examined: a home, or a device and one of its servers.
type side struct {
	Role    string                 `json:"role"` // "share" or "open"
	Server  string                 `json:"server"`
	Blocked string                 `json:"blocked,omitempty"` // what nothing can work before
	Agent   []endpoint.RelayStatus `json:"agent,omitempty"`   // the running share's own view
	Relays  []relayReport          `json:"relays"`
	More    int                    `json:"more_relays,omitempty"` // that were not examined
	Lookup  string                 `json:"lookup,omitempty"`      // why a name led to no relay
	Origin  *originReport          `json:"media_server,omitempty"`
	Plays   bool                   `json:"film_plays"`
	Verdict string                 `json:"verdict"`

	known []wire.Relay
	to    wire.Open
	token bool     // to.Token is one
	url   *url.URL // of the media server; nil: not known
}

// examination is what `doctor` prints.
type examination struct {
	Plays   bool     `json:"film_plays"` // on every side
	Sides   []*side  `json:"sides"`
	Buffers *buffers `json:"socket_buffers,omitempty"` // of Linux
}

// Run examines, prints, and fails if a film would not play.
func (c doctorCmd) Run(a *app) error {
	sides, err := c.sides()
	if err != nil {
		return err
	}
	e, err := examine(a, sides)
	if err != nil {
		return err
	}
	if a.Err() != nil {
		return errors.New("stopped before the examination was over")
	}
	e.Buffers = readBuffers("/proc/sys/net/core")
	if c.JSON {
		err = printJSON(a.stdout, e)
	} else {
		err = e.print(a.stdout)
	}
	if err == nil && !e.Plays {
		err = errSaid
	}
	return err
}

// sides finds what there is to examine.
func (c doctorCmd) sides() ([]*side, error) {
	share, err := stateDir(c.State, "share")
	if err != nil {
		return nil, err
	}
	open, err := stateDir(c.State, "open")
	if err != nil {
		return nil, err
	}
	var all []*side
	if holds(share, homeFile) {
		r, _, err := askOwner(share, request{Do: doDoctor})
		if err != nil {
			return nil, err
		}
		s, err := homeSide(r.Doctor)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if holds(open, awayFile) {
		servers, err := awaySides(open)
		if err != nil {
			return nil, err
		}
		all = append(all, servers...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is nothing to examine at %s: run `blindlink share` or `blindlink open` first, or say where the state is with --state DIR", where(share, open))
	}
	return all, nil
}

func homeSide(c *homeCase) (*side, error) {
	if c == nil || c.Share == nil {
		return nil, errors.New("the running blindlink does not say what is to be examined: is it of another version? Restart it")
	}
	share := c.Share
	s := &side{Role: "share", Server: share.Server, Agent: share.Relays, token: c.Token != wire.Token{}}
	switch {
	case !share.RemoteAccess:
		s.Blocked = "remote access is off; turn it on with `blindlink on`"
	case !share.Running:
		s.Blocked = "`blindlink share` is not running, so no relay knows this server; start it"
	}
	route, err := wire.ParseRoute(share.Route)
	if err != nil {
		return nil, err
	}
	s.to = wire.Open{Route: route, Token: c.Token}
	for _, text := range share.Known {
		r, err := wire.ParseRelay(text)
		if err != nil {
			return nil, err
		}
		s.known = append(s.known, r)
	}
	if c.To != "" {
		if s.url, err = url.Parse(c.To); err != nil {
			return nil, errors.New("the media server's address at the running blindlink is not one")
		}
	}
	return s, nil
}

func awaySides(dir string) ([]*side, error) {
	away, err := pair.OpenAway(dir)
	if err != nil {
		return nil, err
	}
	defer away.Close()
	servers, err := away.Servers()
	if err != nil {
		return nil, err
	}
	var all []*side
	for _, s := range servers {
		all = append(all, &side{
			Role: "open", Server: s.Name, known: s.Relays,
			to: wire.Open{Route: s.Route, Token: s.Token}, token: true,
		})
	}
	return all, nil
}

// examine reaches for everything at the same time, then measures the lines one
// after the other.
func examine(ctx context.Context, sides []*side) (*examination, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	dialer, err := transport.NewDialer(nil)
	if err != nil {
		return nil, err
	}
	defer dialer.Close()
	var wait sync.WaitGroup
	for _, s := range sides {
		wait.Go(func() { s.reach(ctx, dialer) })
		if s.url != nil {
			wait.Go(func() { s.Origin = visit(ctx, s.url) })
		}
	}
	wait.Wait()
	e := &examination{Sides: sides, Plays: true}
	for _, s := range sides {
		s.measure(ctx)
		s.Plays, s.Verdict = s.judge()
		e.Plays = e.Plays && s.Plays
	}
	return e, nil
}
