package pair

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// Deadlines of the conversation.
const (
	// answerTime is for everything that machines do.
	answerTime = 10 * time.Second
	// approveTime is for the owner to look at six words.
	approveTime = 2 * time.Minute
)

// After maxFailures failed pairings within failWindow, all are refused until
// the window ends.
const (
	maxFailures = 5
	failWindow  = time.Minute
)

// refusedError is what Serve decided.
type refusedError struct {
	refusal refusal
	why     error // for the owner's log
}

func (e *refusedError) Error() string { return "pairing refused: " + e.why.Error() }
func (e *refusedError) Unwrap() error { return e.why }

func refuse(r refusal, why string) error { return &refusedError{r, errors.New(why)} }

// refusalOf returns what to answer to the device for an error.
func refusalOf(err error) refusal {
	if r := (*refusedError)(nil); errors.As(err, &r) {
		return r.refusal
	}
	return refusedInternal
}

// Approver asks the owner whether the device that shows these six words may
// pair under this name. It must return when ctx ends, which is after two
// minutes, or earlier if the device leaves.
type Approver func(ctx context.Context, name, words string) bool

// Words returns the six words that both sides show before the owner approves:
// see [e2e.Words]. Binding is keying material exported from the TLS connection,
// at least 32 bytes: HKDF-SHA256(binding, info "blindrelay-pair/1 words", 9).
func Words(binding []byte) (string, error) {
	if len(binding) < 32 {
		return "", fmt.Errorf("%d bytes of keying material, at least 32", len(binding))
	}
	b, err := hkdf.Key(sha256.New, binding, nil, "blindrelay-pair/1 words", e2e.WordsLen)
	if err != nil {
		return "", err
	}
	return e2e.Words([e2e.WordsLen]byte(b)), nil
}

// Serve is the agent's side of one pairing conversation. Conn is the
// authenticated TLS connection, device is the pin that it verified, binding is
// keying material exported from it (see [Words]). It takes at most 10 s to
// hear the request and 10 s to answer, and two minutes between if the invite
// demands approval; approve may be nil, then such invites are refused. If the
// device that Serve returns has a name, it is on the list and the invite is
// gone, and an error then means only that the answer did not leave. The caller
// closes conn; Serve closes it itself if ctx ends. A request that cannot be
// read is not answered.
func (h *Home) Serve(ctx context.Context, conn net.Conn, device e2e.Pin, binding []byte, approve Approver) (Device, error) {
	defer closeOnDone(ctx, conn)()
	words, err := Words(binding)
	if err != nil {
		return Device{}, err
	}
	conn.SetDeadline(time.Now().Add(answerTime))
	req, err := readRequest(conn)
	if ctx.Err() != nil {
		return Device{}, ctx.Err()
	}
	if err != nil {
		return Device{}, err
	}
	dev, err := h.decide(ctx, conn, device, req, words, approve)
	answer := e2e.Frame{Type: framePairOK}
	if err == nil {
		answer.Payload = h.grant(dev).encode()
	} else {
		answer = e2e.Frame{Type: framePairErr, Payload: refusalOf(err).encode()}
	}
	conn.SetDeadline(time.Now().Add(answerTime))
	if werr := e2e.WriteFrame(conn, answer); werr != nil && err == nil {
		err = fmt.Errorf("device %q is paired, but the answer did not reach it: %w", dev.Name, werr)
	}
	return dev, err
}

func (h *Home) decide(ctx context.Context, conn net.Conn, device e2e.Pin, req pairRequest, words string, approve Approver) (Device, error) {
	secret := secretHash(req.secret)
	inv, err := h.reserve(secret, approve != nil)
	if err != nil {
		return Device{}, err
	}
	name := inv.Name
	if name == "" {
		name = req.name
	}
	if inv.Approve {
		defer h.release(secret)
		if err := ask(ctx, conn, approve, name, words); err != nil {
			if refusalOf(err) == refusedByOwner {
				err = errors.Join(err, h.withdraw(secret))
			}
			return Device{}, err
		}
	}
	return h.redeem(secret, device, name)
}

// ask lets the owner decide and stops asking if the device leaves. The
// goroutine it starts has ended when it returns.
func ask(ctx context.Context, conn net.Conn, approve Approver, name, words string) error {
	asking, cancel := context.WithTimeout(ctx, approveTime)
	defer cancel()
	conn.SetDeadline(time.Now().Add(approveTime + answerTime))
	ended := make(chan struct{}) // closed by the goroutine
	go func() {
		defer close(ended)
		conn.Read(make([]byte, 1)) // a device that waits says nothing: it returns when the device leaves
		cancel()
	}()
	yes := approve(asking, name, words)
	early := asking.Err()
	conn.SetReadDeadline(time.Unix(1, 0))
	<-ended
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(early, context.Canceled):
		return fmt.Errorf("device %q left while the owner was asked", name)
	case early != nil:
		return fmt.Errorf("device %q: %w", name, refuse(refusedSilence, "the owner did not answer in time"))
	case !yes:
		return fmt.Errorf("device %q: %w", name, refuse(refusedByOwner, "the owner said no"))
	}
	return nil
}

// reserve finds the open invite of a secret. One that demands approval is
// taken until release. Everything that fails takes the same way and time.
func (h *Home) reserve(secret hash, canAsk bool) (savedInvite, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := time.Now()
	if age := t.Sub(h.window); age >= failWindow || age < 0 {
		h.window, h.failures = t, 0
	}
	if h.failures >= maxFailures {
		return savedInvite{}, refuse(refusedLater, "too many failed attempts, all are refused for a minute")
	}
	s := h.state.Load()
	inv, found := s.invite(secret, now())
	switch {
	case !found, !s.Enabled, h.reserved[secret]:
		h.failures++
		return savedInvite{}, refuse(refusedInvite, "no open invite matches: it was used, has expired, was withdrawn or never existed")
	case inv.Approve && !canAsk:
		return savedInvite{}, refuse(refusedSilence, "the invite demands approval and nobody can be asked")
	case inv.Approve:
		h.reserved[secret] = true
	}
	return inv, nil
}

func (h *Home) release(secret hash) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.reserved, secret)
}

// withdraw takes an invite off the list that the owner has refused. If that
// cannot be written the invite stays open, and the owner is asked again.
func (h *Home) withdraw(secret hash) error {
	return h.update(func(s *homeState) error {
		s.dropInvite(secret)
		return nil
	})
}

// redeem deletes the invite and adds the device in one write.
func (h *Home) redeem(secret hash, pin e2e.Pin, name string) (Device, error) {
	var dev savedDevice
	err := h.update(func(s *homeState) (err error) {
		inv, found := s.invite(secret, now())
		if !found || !s.Enabled {
			return refuse(refusedInvite, "the invite was used or withdrawn, or expired, in the meantime")
		}
		s.dropInvite(secret)
		dev, err = s.admit(pin, name, inv.Generation, now())
		return err
	})
	if err != nil {
		return Device{}, err
	}
	return dev.device(), nil
}

func (h *Home) grant(d Device) grant {
	return grant{device: d.Name, server: h.Server(), token: h.Token(d.Pin), relays: h.Relays()}
}

// Request is the device's side: it shows the invite's secret on conn, an
// authenticated TLS connection whose server pin is the invite's, and returns
// the server to store with [Away.Add]. Name is what the device calls itself,
// used where the invite gives no name. It takes at most 10 s, or 2 min 20 s
// where the owner must approve; the caller then shows [Words] first. If the
// connection breaks before the answer arrives, the invite may be used up: a
// new one then pairs the device under the name that it has already. The caller
// closes conn.
func Request(ctx context.Context, conn net.Conn, inv Invite, name string) (Server, error) {
	defer closeOnDone(ctx, conn)()
	limit := answerTime
	if inv.Approve {
		limit = approveTime + 2*answerTime
	}
	conn.SetDeadline(time.Now().Add(limit))
	srv, err := request(conn, inv, name)
	if cause := ctx.Err(); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return Server{}, fmt.Errorf("pair: %w", err)
	}
	return srv, nil
}

func request(conn net.Conn, inv Invite, name string) (Server, error) {
	req := pairRequest{secret: inv.secret, name: cleanName(name, "device")}
	if err := e2e.WriteFrame(conn, e2e.Frame{Type: framePairReq, Payload: req.encode()}); err != nil {
		return Server{}, err
	}
	f, err := readFrame(conn)
	if err != nil {
		return Server{}, fmt.Errorf("the server did not answer: %w; if the invite is refused the next time, ask for a new one", err)
	}
	switch f.Type {
	case framePairOK:
		g, err := parseGrant(f.Payload)
		if err != nil {
			return Server{}, err
		}
		return Server{Name: g.server, Pin: inv.Server, Route: inv.Route, Device: g.device, Token: g.token, Relays: g.relays, Paired: now()}, nil
	case framePairErr:
		r, err := parseRefusal(f.Payload)
		if err != nil {
			return Server{}, err
		}
		if expired := inv.Expired(time.Now()); r == refusedInvite && expired != nil {
			return Server{}, expired
		}
		return Server{}, errors.New(r.String())
	}
	return Server{}, fmt.Errorf("%w: type 0x%02x in a pairing", e2e.ErrFrame, f.Type)
}

// closeOnDone closes conn when ctx ends and wakes whoever reads or writes.
// The function it returns stops that and waits for it.
func closeOnDone(ctx context.Context, conn net.Conn) (stop func()) {
	done := make(chan struct{}) // closed by the function that ctx runs
	off := context.AfterFunc(ctx, func() {
		defer close(done)
		conn.SetDeadline(time.Unix(1, 0))
		conn.Close()
	})
	return func() {
		if !off() {
			<-done
		}
	}
}
