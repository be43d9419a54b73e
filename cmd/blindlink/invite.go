package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"golang.org/x/term"
)

type inviteCmd struct {
	homeState
	Name    string        `placeholder:"NAME" help:"Name of the device on your list. Default: what it calls itself."`
	TTL     time.Duration `default:"1h" help:"How long the invite is good for, at most 720h."`
	Approve bool          `help:"Wait here until the device comes, and ask before it is let in: both sides show six words."`
}

// Run prints an invite, and stays for the approval.
func (c inviteCmd) Run(a *app) error {
	if c.TTL <= 0 {
		return usageError{errors.New("--ttl must be more than zero, like 1h")}
	}
	dir, err := c.dir()
	if err != nil {
		return err
	}
	req := request{Do: doInvite, Name: c.Name, TTL: c.TTL, Approve: c.Approve}
	if c.Approve {
		return inviteAndWait(a, dir, req)
	}
	r, running, err := askOwner(dir, req)
	if err != nil {
		return err
	}
	if err := showInvite(a, r.Invite); err != nil {
		return err
	}
	if !running {
		fmt.Fprintln(a.stderr, "`blindlink share` is not running: the device can pair once it is.")
	}
	return nil
}

// showInvite prints the text alone on stdout, so that it can be piped.
func showInvite(a *app, inv *invitation) error {
	if inv == nil {
		return errors.New("the running blindlink gave no invite: is it of an older version? Restart it")
	}
	if _, err := fmt.Fprintln(a.stdout, inv.Text); err != nil {
		return err
	}
	if f, ok := a.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		qrterminal.GenerateHalfBlock(inv.Text, qrterminal.L, f)
	}
	_, err := fmt.Fprintf(a.stderr, "On the device: blindlink open INVITE. It is good for one device, until %s.\n", when(inv.Expires))
	return err
}

// inviteAndWait is `invite --approve`.
func inviteAndWait(a *app, dir string, req request) error {
	if err := mustBeHome(dir); err != nil {
		return err
	}
	d, err := dialControl(dir, controlName)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("nobody could ask you: --approve works while `blindlink share` runs, start it first")
	}
	if err != nil {
		return err
	}
	defer d.Close()
	r, err := exchange(d, req)
	if err != nil {
		return err
	}
	if err := showInvite(a, r.Invite); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "Waiting for the device. If this command ends before, the invite is worth nothing.")
	return waitForDevice(a, d)
}

// waitForDevice asks the owner what the agent asks. Its goroutines end with
// the process or with d.
func waitForDevice(a *app, d *dialogue) error {
	replies := make(chan reply) // closed when the agent has gone
	go func() {
		defer close(replies)
		for {
			var r reply
			if d.receive(&r, 0) != nil {
				return
			}
			select {
			case replies <- r:
			case <-a.Done():
				return
			}
		}
	}()
	lines := make(chan string) // what the owner types; closed at its end
	go readLines(a, lines)
	var asked, nobody bool // a question is open; stdin has ended
	for {
		if asked && nobody {
			asked = false
			fmt.Fprintln(a.stderr, "\nNobody can answer here (stdin has ended), so the answer is no.")
			if err := d.send(answer{Yes: false}); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-replies:
			switch {
			case !ok:
				return errors.New("`blindlink share` has stopped: the invite is worth nothing, make a new one")
			case r.Error != "":
				return errors.New(r.Error)
			case r.Paired != "":
				_, err := fmt.Fprintf(a.stdout, "paired: %s\n", r.Paired)
				return err
			case r.Left && asked:
				asked = false
				fmt.Fprintln(a.stderr, "The device has left. Waiting for it to come back.")
			case r.Ask != nil:
				asked = true
				fmt.Fprintf(a.stderr, "Device %q wants to come in. Does it show the words %q? Then type y, else n: ", r.Ask.Name, r.Ask.Words)
			}
		case line, more := <-lines:
			if !more {
				lines, nobody = nil, true
				continue
			}
			if !asked {
				continue // nothing was asked yet, so it is no answer
			}
			asked = false
			if err := d.send(answer{Yes: isYes(line)}); err != nil {
				return err
			}
		case <-a.Done():
			return errors.New("stopped before a device came: the invite is worth nothing")
		}
	}
}

func readLines(a *app, lines chan<- string) {
	defer close(lines)
	in := bufio.NewScanner(io.LimitReader(a.stdin, 1<<16))
	for in.Scan() {
		select {
		case lines <- in.Text():
		case <-a.Done():
			return
		}
	}
}

func isYes(line string) bool {
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true
	}
	return false
}
