package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Errors of sealed streams. Every error that only a relay or a network that
// changes or cuts data can cause wraps [ErrTampered].
var (
	// ErrTampered says that what arrived is not what the other endpoint sent.
	ErrTampered = errors.New("the relay or the network changed or cut the data")
	// ErrSpliced is the ErrTampered of a stream whose beginning belongs to no
	// session here, or to another stream.
	ErrSpliced = fmt.Errorf("%w: a stream begins with bytes of another one", ErrTampered)
	// ErrReplay is the ErrTampered of a stream that was already opened once.
	ErrReplay = fmt.Errorf("%w: a stream was delivered twice", ErrTampered)
	// ErrTrailing is the ErrTampered of a stream that goes on after its end.
	ErrTrailing = fmt.Errorf("%w: a stream goes on after its end", ErrTampered)
	// ErrTruncated is the ErrTampered of a stream that stops before its end.
	// It also wraps io.ErrUnexpectedEOF.
	ErrTruncated = fmt.Errorf("%w: a stream stops before its end: %w", ErrTampered, io.ErrUnexpectedEOF)

	// ErrHandshake says that a handshake did not come to its end although the
	// relay carried it: its bytes were changed or cut on the way, or the other
	// endpoint does not speak this protocol. Nothing was sent.
	ErrHandshake = errors.New("the handshake with the server failed: the relay or the network changed it, or the server is of another version")
	// ErrWrongServer says that somebody else than the paired server answered.
	// Nothing was sent, not even who this device is.
	ErrWrongServer = errors.New("the server that answered has another key than the one this device was paired with: the relay or the network connects it to a stranger, or the server was set up anew")

	// ErrTooManyStreams says that the session has as many open streams as the
	// agent allows. Close one and try again.
	ErrTooManyStreams = errors.New("too many open streams in this session")
	// ErrSilent says that the other endpoint was not heard of for too long.
	ErrSilent = errors.New("the other endpoint has gone silent")

	// errEmptyRecords is what a writer of this package never does.
	errEmptyRecords = fmt.Errorf("%w: too many empty records", ErrTampered)
	errRecord       = fmt.Errorf("%w: a record does not verify", ErrTampered)
	errWindow       = errors.New("the other endpoint sent more than a stream may have under way")
	errExhausted    = errors.New("the stream has carried as many records as one stream may")
)

// GoAwayError says that the other endpoint ended the session and why. It came
// inside the session: the relay cannot forge it.
type GoAwayError struct {
	Code   wire.Code // CodeRefused: the device is not, or no longer, on the agent's list; CodeOff: remote access is off
	Reason string    // the other endpoint's sentence, at most 256 bytes
}

// Unwrap returns [ErrTampered] if that was the reason.
func (e *GoAwayError) Unwrap() error { return tampering(e.Code) }

func (e *GoAwayError) Error() string {
	return fmt.Sprintf("the other endpoint ended the session: %s (%q)", e.Code, e.Reason)
}

// ClosedError says that this endpoint ended the session and why.
type ClosedError struct {
	Code   wire.Code
	Reason string
}

// Unwrap returns [ErrTampered] if that was the reason.
func (e *ClosedError) Unwrap() error { return tampering(e.Code) }

func tampering(c wire.Code) error {
	if c == wire.CodeTampered {
		return ErrTampered
	}
	return nil
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("the session was ended here: %s (%s)", e.Code, e.Reason)
}

// handshakeError is why a handshake over h failed with err. Whoever may not
// come in is told so after the handshake, under the seal: a refusal before that
// says that the agent did not like what arrived.
func handshakeError(h *hop, err error) error {
	var reset *wire.ResetError
	refused := errors.As(err, &reset) && reset.Code == wire.CodeRefused
	if h.failed.Load() && !refused || errors.Is(err, ErrWrongServer) {
		return err
	}
	return fmt.Errorf("%w: %v", ErrHandshake, err) // the reset's code says nothing more
}

// cancelledError is why a stream fails that the other endpoint has ended. The
// word came over a link: the relay cannot forge it.
func cancelledError(code wire.Code) error {
	reset := &wire.ResetError{Code: code}
	if code == wire.CodeTampered {
		return fmt.Errorf("%w on their way to the other endpoint: %w", ErrTampered, reset)
	}
	return reset
}

// isSpent reports whether a relay has ended a stream because its agent has used
// up what the relay forwards for it: another stream there ends likewise.
func isSpent(err error) bool {
	var reset *wire.ResetError
	return errors.As(err, &reset) && reset.Code == wire.CodeVolumeLimit
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func isTampered(err error) bool { return errors.Is(err, ErrTampered) }
