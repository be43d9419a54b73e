package main

import (
	"context"
	"crypto/ed25519"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/endpoint"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// desk is an owner who waits in `invite --approve`, and the home that asks.
type desk struct {
	owner   *owner
	command *dialogue   // the command's side of the socket
	invite  pair.Invite // what the command printed
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	home, err := pair.OpenHome(newHome(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	agent, err := endpoint.NewAgent(endpoint.AgentConfig{Home: home, Relays: []wire.Relay{{Addr: "127.0.0.1:9"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	d := &desk{owner: &owner{home: home, agent: agent, asks: new(approvals)}}
	a, b := net.Pipe()
	d.command = newDialogue(a)
	served := make(chan struct{}) // closed when serve has returned
	go func() {
		defer close(served)
		d.owner.serve(t.Context(), newDialogue(b), request{Do: doInvite, Name: "tv", Approve: true})
	}()
	t.Cleanup(func() { a.Close(); <-served })
	d.invite, err = pair.ParseInvite(d.reply(t).Invite.Text)
	if err != nil || !d.invite.Approve {
		t.Fatalf("%v: %+v", err, d.invite)
	}
	return d
}

func (d *desk) reply(t *testing.T) reply {
	t.Helper()
	var r reply
	if err := d.command.receive(&r, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	return r
}

// device comes with the invite. The error is what it is told; leave ends it.
func (d *desk) device(t *testing.T) (told <-chan error, leave func()) {
	t.Helper()
	key, _, _ := ed25519.GenerateKey(nil)
	pin, err := e2e.PinOf(key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer b.Close()
		d.owner.home.Serve(context.Background(), b, pin, make([]byte, 32), d.owner.asks.approve)
	}()
	errs := make(chan error, 1) // one value, by the goroutine below
	go func() {
		_, err := pair.Request(context.Background(), a, d.invite, "tv")
		errs <- err
	}()
	t.Cleanup(func() { a.Close(); <-served })
	return errs, func() { a.Close(); <-served } // the invite is free again only then
}

func TestApproval(t *testing.T) {
	t.Run("yes, after the device came twice", func(t *testing.T) {
		d := newDesk(t)
		_, leave := d.device(t)
		if r := d.reply(t); r.Ask == nil || r.Ask.Name != "tv" || len(strings.Fields(r.Ask.Words)) != 6 {
			t.Fatalf("%+v", r)
		}
		go leave()
		if r := d.reply(t); !r.Left {
			t.Fatalf("the device has left: %+v", r)
		}
		leave()
		told, _ := d.device(t)
		if r := d.reply(t); r.Ask == nil {
			t.Fatalf("%+v", r)
		}
		d.command.send(answer{Yes: true})
		if r := d.reply(t); r.Paired != "tv" {
			t.Errorf("%+v", r)
		}
		if err := <-told; err != nil {
			t.Error(err)
		}
	})
	t.Run("no", func(t *testing.T) {
		d := newDesk(t)
		told, _ := d.device(t)
		d.reply(t)
		d.command.send(answer{Yes: false})
		if r := d.reply(t); !strings.Contains(r.Error, "withdrawn") {
			t.Errorf("%+v", r)
		}
		if err := <-told; err == nil || !strings.Contains(err.Error(), "owner") {
			t.Errorf("the device is told %v", err)
		}
		if len(d.owner.home.Devices()) != 0 {
			t.Error("a device that was refused is on the list")
		}
	})
	t.Run("the owner leaves while asked", func(t *testing.T) {
		d := newDesk(t)
		told, _ := d.device(t)
		d.reply(t)
		d.command.Close()
		if err := <-told; err == nil || len(d.owner.home.Devices()) != 0 {
			t.Errorf("nobody said yes, and the device is told %v", err)
		}
	})
	t.Run("the owner left before", func(t *testing.T) {
		d := newDesk(t)
		d.command.Close()
		told, _ := d.device(t)
		if err := <-told; err == nil || len(d.owner.home.Devices()) != 0 {
			t.Errorf("nobody said yes, and the device is told %v", err)
		}
	})
}

func TestIsYes(t *testing.T) {
	for line, want := range map[string]bool{"y": true, " Yes ": true, "": false, "n": false, "yep": false, "ja": false} {
		if isYes(line) != want {
			t.Errorf("%q", line)
		}
	}
}
