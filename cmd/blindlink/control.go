package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A running `share` or `open` listens on a unix socket in its state directory,
// which only its user can look into. A connection carries one request and its
// replies, each a JSON object.

const (
	controlName = "control.sock"
	// maxSocketPath is the longest path that every system takes, in bytes
	// (sun_path is 104 on macOS, 108 on Linux, with a zero at its end).
	maxSocketPath = 103
	// maxMessages bounds what one side says on a connection, in bytes.
	maxMessages = 1 << 20
	// maxControls is how many connections are served at a time.
	maxControls = 16
	// controlTime is how long either side has for one message, and a request
	// for its reply. Revocation waits for at most a second of goodbyes.
	controlTime = 10 * time.Second
)

// request is what a command asks.
type request struct {
	Do      string        `json:"do"` // one of the do constants
	Name    string        `json:"name,omitempty"`
	NewName string        `json:"new_name,omitempty"`
	TTL     time.Duration `json:"ttl_ns,omitempty"`
	Approve bool          `json:"approve,omitempty"`
}

// What can be asked.
const (
	doStatus  = "status"
	doDevices = "devices"
	doRename  = "rename"
	doRevoke  = "revoke"
	doOn      = "on"
	doOff     = "off"
	doInvite  = "invite"
	doDoctor  = "doctor"
	doVerify  = "verify"
)

// reply is an answer. Those but the last of a connection are steps of an
// invite that the owner approves.
type reply struct {
	Error   string         `json:"error,omitempty"`
	Invite  *invitation    `json:"invite,omitempty"`
	Devices []device       `json:"devices,omitempty"`
	Share   *shareStatus   `json:"share,omitempty"`
	Open    *openStatus    `json:"open,omitempty"`
	Doctor  *homeCase      `json:"doctor,omitempty"`
	Verify  []verification `json:"verify,omitempty"`
	Ask     *questionReply `json:"ask,omitempty"`    // the owner must answer
	Left    bool           `json:"left,omitempty"`   // the device that was asked about has left
	Paired  string         `json:"paired,omitempty"` // the device's name: it may come now
}

type questionReply struct {
	Name  string `json:"name"`
	Words string `json:"words"`
}

// answer is the owner's word on a question.
type answer struct {
	Yes bool `json:"yes"`
}

// dialogue is one connection of the socket, from either side.
type dialogue struct {
	net.Conn
	in *json.Decoder
}

func newDialogue(c net.Conn) *dialogue {
	return &dialogue{c, json.NewDecoder(io.LimitReader(c, maxMessages))}
}

func (d *dialogue) send(v any) error {
	d.SetWriteDeadline(time.Now().Add(controlTime))
	return json.NewEncoder(d).Encode(v)
}

// finish sends the last reply. A command that has gone does not hear it.
func (d *dialogue) finish(r reply, err error) {
	if err != nil {
		r = reply{Error: err.Error()}
	}
	d.send(r)
}

// receive waits for a message; a limit of 0 waits for ever.
func (d *dialogue) receive(v any, limit time.Duration) error {
	var t time.Time
	if limit > 0 {
		t = time.Now().Add(limit)
	}
	d.SetReadDeadline(t)
	return d.in.Decode(v)
}

// listenControl makes the socket. The caller is the only one to use its name.
func listenControl(dir, name string) (net.Listener, error) {
	path := filepath.Join(dir, name)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path of the socket %s has %d bytes, at most %d are possible: choose a shorter --state DIR", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("an old socket is in the way: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket in the state directory: %w", err)
	}
	// The directory is closed to others, so the moment before does no harm.
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("socket in the state directory: %w", err)
	}
	return ln, nil
}

// dialControl connects to a socket. The error is fs.ErrNotExist if nobody
// listens there.
func dialControl(dir, name string) (*dialogue, error) {
	path := filepath.Join(dir, name)
	if len(path) > maxSocketPath { // nobody could have listened
		return nil, fs.ErrNotExist
	}
	c, err := net.DialTimeout("unix", path, controlTime)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return newDialogue(c), nil
}

// serveControl answers requests until ctx ends, then waits for its goroutines:
// one for each connection.
func serveControl(ctx context.Context, ln net.Listener, log *slog.Logger, serve func(context.Context, *dialogue, request)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	stopped := make(chan struct{}) // closed when the listener is
	wait.Go(func() {
		<-ctx.Done()
		ln.Close()
		close(stopped)
	})
	slots := make(chan struct{}, maxControls) // one value for each connection
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				<-stopped
				return nil
			}
			return fmt.Errorf("socket in the state directory: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			log.Warn("too many commands at once", "limit", maxControls)
			c.Close()
			continue
		}
		wait.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			d := newDialogue(c)
			var req request
			if err := d.receive(&req, controlTime); err != nil {
				return
			}
			serve(ctx, d, req)
		})
	}
}
