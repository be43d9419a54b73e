package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A running relay listens on a unix socket in its state directory, which only
// its user can look into. A connection carries one request, the line
// "drain DURATION", and then the number of endpoints that are left, a line each
// time it falls, until the relay ends.

const (
	drainSocket = "drain.sock"
	// maxSocketPath is the longest path that every system takes, in bytes
	// (sun_path is 104 on macOS, 108 on Linux, with a zero at its end).
	maxSocketPath = 103
	// socketTime is how long either side has for a line that is due.
	socketTime = 5 * time.Second
	// drainStep is how often the number of endpoints is looked at.
	drainStep = 100 * time.Millisecond
)

// drainSocketPath returns where the socket of a state directory is.
func drainSocketPath(dir string) (string, error) {
	path := filepath.Join(dir, drainSocket)
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("the path of the socket %s has %d bytes, at most %d are possible: choose a shorter --state DIR", path, len(path), maxSocketPath)
	}
	return path, nil
}

// drainServer answers `blindrelay drain`.
type drainServer struct {
	ln        net.Listener
	endpoints func() int
	// asked takes the time that the first command gives. It has room for that
	// one and is never closed; later commands only watch.
	asked  chan time.Duration
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// listenDrain serves until close.
func listenDrain(dir string, endpoints func() int) (*drainServer, error) {
	path, err := drainSocketPath(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if looser(info, 0o077) {
		return nil, fmt.Errorf("other users may enter %s (mode %04o): run `chmod 700 %s`", dir, info.Mode().Perm(), dir)
	}
	if c, err := net.DialTimeout("unix", path, socketTime); err == nil {
		c.Close()
		return nil, errors.New("another relay runs with the same state directory and has the socket")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("an old socket is in the way: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// The directory is closed to others, so the moment before does no harm.
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	d := &drainServer{ln: ln, endpoints: endpoints, asked: make(chan time.Duration, 1)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wait.Go(d.serve)
	return d, nil
}

// close tells the commands what is left and ends the server. It may be called
// again.
func (d *drainServer) close() {
	d.cancel()
	d.ln.Close()
	d.wait.Wait()
}

// serve has a goroutine for each command.
func (d *drainServer) serve() {
	for {
		c, err := d.ln.Accept()
		if err != nil {
			return
		}
		d.wait.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(socketTime))
			defer context.AfterFunc(d.ctx, func() { c.SetReadDeadline(time.Now()) })()
			line, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n')
			if err != nil {
				return
			}
			text, ok := strings.CutPrefix(strings.TrimSpace(line), "drain ")
			within, err := time.ParseDuration(text)
			if !ok || err != nil || within < 0 {
				return
			}
			select {
			case d.asked <- within:
			default: // the relay is being emptied already
			}
			d.watch(c)
		})
	}
}

// watch says how many endpoints are left, and last of all what close finds.
func (d *drainServer) watch(c net.Conn) {
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	for last := -1; ; {
		ended := false
		select {
		case <-tick.C:
		case <-d.ctx.Done():
			ended = true
		}
		if n := d.endpoints(); n != last {
			last = n
			c.SetWriteDeadline(time.Now().Add(socketTime))
			if _, err := fmt.Fprintln(c, n); err != nil {
				return
			}
		}
		if ended {
			return
		}
	}
}

type drainCmd struct {
	State   string        `placeholder:"DIR" type:"path" help:"State directory of the relay that is to be emptied. Default as for serve."`
	Timeout time.Duration `default:"30s" placeholder:"DURATION" help:"How long endpoints may take to move; then the relay ends their sessions. Default ${default}."`
}

func (c *drainCmd) Run(ctx context.Context) error {
	if c.Timeout < 0 {
		return usageError{"--timeout takes a time from 0 on, for example 30s", "timeout"}
	}
	if c.State == "" {
		c.State = defaultStateDir(os.Getenv)
	}
	path, err := drainSocketPath(c.State)
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", path, socketTime)
	if err != nil {
		return fmt.Errorf("no relay answers in the state directory %s: --state DIR is that of the running relay, and only its user may ask (%w)", c.State, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(c.Timeout + endWithin + 2*socketTime))
	if _, err := fmt.Fprintf(conn, "drain %v\n", c.Timeout); err != nil {
		return fmt.Errorf("ask the relay: %w", err)
	}
	return follow(ctx, conn, os.Stdout)
}

// follow prints what the relay says until it ends. Its last word must be 0.
func follow(ctx context.Context, conn io.Reader, out io.Writer) error {
	left := -1
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil || n < 0 {
			return fmt.Errorf("the relay said %q: is it of another version?", lines.Text())
		}
		left = n
		sessions := "sessions"
		if n == 1 {
			sessions = "session"
		}
		if _, err := fmt.Fprintf(out, "%d %s left\n", n, sessions); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: the relay goes on emptying itself")
	case lines.Err() != nil:
		return fmt.Errorf("the relay said no more: %w", lines.Err())
	case left < 0:
		return errors.New("the relay closed the connection without a word: see its log")
	case left > 0:
		return fmt.Errorf("sessions that the relay ended because time was up: %d", left)
	}
	return nil
}
