package viewer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// Why a request ended early.
var (
	errQuiet = errors.New("nothing came for too long")
	errShort = errors.New("the response is shorter than the content")
	errRange = errors.New("the server ignores Range")
	errAway  = errors.New("the server redirects to another host")
)

// statusError is an answer other than success.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the server answered with status %d", int(e)) }

// playlistError is an answer that is not a playlist a viewer can use.
type playlistError struct{ error }

func (e playlistError) Unwrap() error { return e.error }

// codeOf names the error of a request in one word: http_404, a wire.Code, or
// the kind of failure. What no request returns is named where it is found:
// corrupt, behind_window and playlist_reset.
func codeOf(err error) string {
	if e, ok := errors.AsType[statusError](err); ok {
		return fmt.Sprintf("http_%d", int(e))
	}
	if _, ok := errors.AsType[playlistError](err); ok {
		return "playlist"
	}
	if e, ok := errors.AsType[*e2e.GoAwayError](err); ok {
		return e.Code.String()
	}
	if e, ok := errors.AsType[*wire.ResetError](err); ok {
		return e.Code.String()
	}
	if e, ok := errors.AsType[*wire.ClosedError](err); ok {
		return e.Code.String()
	}
	switch {
	case errors.Is(err, errRange):
		return "no_range"
	case errors.Is(err, errAway):
		return "redirected"
	case errors.Is(err, errQuiet), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, errShort), errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF):
		return "connection_lost"
	}
	if _, ok := errors.AsType[*transport.LostError](err); ok {
		return "connection_lost"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "name"
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "timeout"
	}
	return "other"
}
