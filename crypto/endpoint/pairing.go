package endpoint

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/crypto/pair"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// PairConfig is what Pair needs.
type PairConfig struct {
	Identity crypto.Signer // the device's key. Required
	Invite   pair.Invite   // required
	Name     string        // what the device calls itself, where the invite gives no name
	// Words is called with the six words that both sides must see, if the
	// owner has to approve. It may be nil.
	Words func(words string)
	// Log takes what the user should know. Nil logs nothing.
	Log *slog.Logger
	// Socket carries the connection to the relay. Pair owns it. Nil: a UDP
	// socket of its own.
	Socket net.PacketConn
}

// Pair redeems an invite. It tries the invite's relays in order until one
// reaches the server. It takes at most some 30 s, or two minutes longer where
// the owner has to approve.
func Pair(ctx context.Context, cfg PairConfig) (pair.Server, error) {
	id, err := e2e.NewIdentity(cfg.Identity)
	if err != nil {
		return pair.Server{}, err
	}
	dialer, err := transport.NewDialer(cfg.Socket)
	if err != nil {
		return pair.Server{}, err
	}
	defer dialer.Close()
	var errs []error
	for _, relay := range cfg.Invite.Relays {
		conn, attachment, err := reachToPair(ctx, dialer, relay, id, cfg)
		if err != nil {
			errs = append(errs, explain(err))
			continue
		}
		defer attachment.Close(wire.CodeNone, "")
		defer conn.Close()
		if cfg.Invite.Approve && cfg.Words != nil {
			words, err := pair.Words(conn.Binding())
			if err != nil {
				return pair.Server{}, err
			}
			cfg.Words(words)
		}
		// An answer of the server counts, whatever it is.
		return pair.Request(ctx, conn, cfg.Invite, cfg.Name)
	}
	return pair.Server{}, errors.Join(errs...)
}

func reachToPair(ctx context.Context, dialer *transport.Dialer, relay wire.Relay, id *e2e.Identity, cfg PairConfig) (*e2e.PairingConn, *hop.Attachment, error) {
	_, attachment, err := attach(ctx, dialer.Dial, relay, wire.Open{Route: cfg.Invite.Route, Token: cfg.Invite.Token()})
	if err != nil {
		return nil, nil, err
	}
	st, err := attachment.Open(ctx)
	if err != nil {
		attachment.Close(wire.CodeCancelled, "")
		return nil, nil, err
	}
	conn, err := e2e.ConnectPairing(ctx, st, e2e.ClientConfig{Identity: id, Server: cfg.Invite.Server, Log: cfg.Log})
	if err != nil {
		attachment.Close(wire.CodeCancelled, "")
		if expired := cfg.Invite.Expired(time.Now()); expired != nil && codeOf(err) == wire.CodeTokenRefused {
			return nil, nil, expired
		}
		return nil, nil, fmt.Errorf("through relay %s: %w", relay.Addr, err)
	}
	return conn, attachment, nil
}
