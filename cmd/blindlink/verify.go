package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
)

type verifyCmd struct {
	Name  string `arg:"" optional:"" name:"name" help:"A device's name at home, a server's name on a device. Default: all."`
	State string `placeholder:"DIR" help:"State directory of share or open. Default: those of both."`
	JSON  bool   `help:"Print JSON."`
}

// verification is what one end of a session shows.
type verification = endpoint.Verification

func (o *owner) verify() (reply, error) {
	if o.agent == nil {
		return reply{}, errors.New("`blindlink share` is not running, so no device is connected")
	}
	return reply{Verify: o.agent.Verify()}, nil
}

func verifyOpen(ctx context.Context, dialer *endpoint.Dialer) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTime)
	defer cancel()
	v, _, err := dialer.Verify(ctx)
	if err != nil {
		return reply{}, fmt.Errorf("there is no session with the server now: %w", err)
	}
	return reply{Verify: []verification{v}}, nil
}

// Run prints what this end of each live session shows.
func (c verifyCmd) Run(a *app) error {
	share, err := stateDir(c.State, "share")
	if err != nil {
		return err
	}
	open, err := stateDir(c.State, "open")
	if err != nil {
		return err
	}
	home, away := holds(share, homeFile), holds(open, awayFile)
	if !home && !away {
		return fmt.Errorf("there is no state at %s: run `blindlink share` or `blindlink open` first, or say where it is with --state DIR", where(share, open))
	}
	var all []verification
	var absent error // why an end that could have a session shows none
	if away {
		replies, err := askOpens(open, request{Do: doVerify})
		if len(replies) == 0 && err == nil && !home {
			return c.connect(a, open)
		}
		absent = err
		for _, r := range replies {
			all = append(all, c.named(r.Verify, func(v verification) string { return v.Server })...)
		}
	}
	if home {
		r, _, err := askOwner(share, request{Do: doVerify})
		absent = errors.Join(absent, err)
		all = append(all, c.named(r.Verify, func(v verification) string { return v.Device })...)
	}
	switch {
	case len(all) == 0 && absent != nil:
		return absent
	case len(all) == 0:
		return fmt.Errorf("%s is connected now: open it on the device with `blindlink open`, or run `blindlink verify` there, and try again", c.nobody())
	case absent != nil:
		a.log.Warn("not everything is shown", "reason", absent)
	}
	return c.print(a.stdout, all)
}

// named returns those that the command is about.
func (c verifyCmd) named(all []verification, name func(verification) string) []verification {
	return slices.DeleteFunc(all, func(v verification) bool { return c.Name != "" && !strings.EqualFold(name(v), c.Name) })
}

func (c verifyCmd) nobody() string {
	if c.Name == "" {
		return "nobody"
	}
	return fmt.Sprintf("nobody named %q", c.Name)
}

// connect makes a session for as long as people need to compare.
func (c verifyCmd) connect(a *app, dir string) error {
	away, err := pair.OpenAway(dir)
	if err != nil {
		return err
	}
	defer away.Close()
	server, err := away.Find(c.Name)
	if err != nil {
		return err
	}
	dialer, err := endpoint.NewDialer(endpoint.DialerConfig{Identity: away.Identity(), Server: server, Log: a.log})
	if err != nil {
		return err
	}
	defer dialer.Close()
	v, ended, err := dialer.Verify(a)
	if err != nil {
		return fmt.Errorf("server %q: %w", server.Name, err)
	}
	if err := c.print(a.stdout, []verification{v}); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "`blindlink open` is not running, so this session ends with this command. Compare first, then press Enter.")
	lines := make(chan string) // what the user types; closed at its end
	go readLines(a, lines)
	select {
	case <-lines:
	case <-a.Done():
	case <-ended:
		return errors.New("the session has ended: what is shown above is worth nothing any more; try again")
	}
	return nil
}

func (c verifyCmd) print(w io.Writer, all []verification) error {
	if c.JSON {
		return printJSON(w, all)
	}
	t := table(w)
	for _, v := range all {
		fmt.Fprintf(t, "device %q and server %q, since %s\n", v.Device, v.Server, when(v.Since))
		fmt.Fprintf(t, "    words\t%s\n", v.Words)
		fmt.Fprintf(t, "    server's pin\t%s\n", v.ServerPin)
		fmt.Fprintf(t, "    device's pin\t%s\n", v.DevicePin)
		fmt.Fprintf(t, "    suite, group\t%s, %s\n", v.Suite, v.Group)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, `
Run this at the other end too, now, and read the six words to each other, on
the phone or in one room. If they are the same, nobody stands between. A new
session has new words, so if they differ, run both once more. If they still
differ, somebody stands between: at home run `+"`blindlink devices revoke %q`"+`,
and pair again with an invite that takes another way.
`, all[0].Device)
	return err
}
