package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// acceptor serves each connection of a listener in a goroutine of its own.
type acceptor struct {
	limit int // connections at a time; more wait in the listener's queue
	log   *slog.Logger
	serve func(context.Context, net.Conn) // owns the connection
}

// run accepts until ctx ends, which is no error, or the listener does. Then it
// ends the context of what it serves and waits. It closes the listener.
func (a acceptor) run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer onEnd(ctx, func() { l.Close() })()
	defer cancel()

	slots := make(chan struct{}, a.limit) // one value for each connection; taken back when it ends
	var said time.Time                    // when the log last heard that all slots are taken
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		default:
			if time.Since(said) > time.Minute {
				said = time.Now()
				a.log.Warn("too many connections at once, further ones wait", "limit", a.limit)
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
		}
		c, err := a.accept(ctx, l)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept connections: %w", err)
		}
		wait.Go(func() {
			defer func() { <-slots }()
			a.serve(ctx, c)
		})
	}
}

// accept outlasts a machine that is short of files or memory for a while.
func (a acceptor) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	retry := backoff{first: 10 * time.Millisecond, most: time.Second}
	for said := false; ; said = true {
		c, err := l.Accept()
		if err == nil || !short(err) {
			return c, err
		}
		if !said {
			a.log.Warn("no connection can be accepted now, trying again", "error", err)
		}
		if !pause(ctx, retry.next(), nil) {
			return nil, ctx.Err()
		}
	}
}

func short(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func logOr(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
