package endpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// hints say what a person can do about a code, as seen by an endpoint.
var hints = map[wire.Code]string{
	wire.CodeVersion:        "the relay speaks another version of the protocol: update blindlink or ask the operator to update the relay",
	wire.CodeShutdown:       "the relay is going down; this side comes back by itself",
	wire.CodeNotAdmitted:    "the relay does not admit this server: its operator has to allow the route",
	wire.CodeTicketMissing:  "the relay admits this server only with a ticket from its operator",
	wire.CodeTicketRefused:  "the relay does not take this server's ticket: ask its operator for a new one and put it into the file of --ticket",
	wire.CodeTicketExpired:  "the time for which the relay admits this server is over: ask its operator for a new ticket and put it into the file of --ticket",
	wire.CodeAdmitFailed:    "the relay could not find out whether it admits this server; this side tries again by itself",
	wire.CodeReplaced:       "another blindlink with the same state directory took this server's place: is `share` running twice, or on a copy of this machine?",
	wire.CodeRouteUnknown:   "the relay knows no agent for this server: is `blindlink share` running at home, connected to this relay, and remote access on?",
	wire.CodeTokenRefused:   "the relay does not let this device through: it was revoked, remote access is off, or its invite was used or has expired; ask the owner for a new invite",
	wire.CodeMemory:         "the relay has no buffer memory left for another stream: try again later, or ask its operator for more --buffer-memory",
	wire.CodeTooManyStreams: "too many streams are open to this server: close some and try again",
	wire.CodeAgentGone:      "the server's connection to the relay broke off; this side tries again by itself",
	wire.CodeDeviceGone:     "the device's connection to the relay broke off",
	wire.CodeTooManyTokens:  "the relay takes no more devices for this server: revoke some",
	wire.CodeDraining:       "the relay is being emptied, to be replaced or for good; this side goes to another one, or comes back by itself",
	wire.CodeTooManyConns:   "the relay has as many connections of this server as it takes; those go on",
	wire.CodeRelayFull:      "the relay has as many connections as it takes; this side tries again by itself, and another relay if it knows one",
	wire.CodeAddressLimit:   "the relay has as many connections from this network's address as it takes: end those that are not needed, or ask its operator for more --max-sessions-per-address; this side tries again by itself",
	wire.CodeHandshakeLimit: "the relay is busy with new connections and takes no more at this moment, all together or from this network's address; this side tries again by itself",
	wire.CodeRouteLimit:     "the relay serves as many servers as it takes: give this server another relay, or ask its operator for more --max-routes; this side tries again by itself",
	wire.CodeDeviceLimit:    "as many devices use this server through the relay as its operator allows at a time: end one that is not needed; this side tries again by itself",
	wire.CodeStreamLimit:    "as many streams of this server are open as the relay's operator allows at a time: close some and try again",
	wire.CodeVolumeLimit:    "the relay has forwarded as much for this server as its operator allows in a month: it goes on when the next month begins (UTC), until then only through another relay; its operator can allow more",
	wire.CodeRelayStreams:   "the relay forwards as many streams as it takes: try again in a moment, or ask its operator for more --max-streams",
	wire.CodeSilent:         "the relay gave up waiting for an answer",
	wire.CodeProtocol:       "the relay does not understand this side: are both of the same version?",
	wire.CodeFrameTooLarge:  "the relay does not understand this side: are both of the same version?",
	wire.CodeRefused:        "the server refuses this device: it was revoked or never paired; ask the owner for a new invite",
	wire.CodeOff:            "the owner has turned remote access off",
	wire.CodeBusy:           "the server has no room for another connection now: try again in a moment",
}

// Explain puts a sentence for people, which says what to do, before an error
// that carries a code of the relay or the agent. Others it returns as they are.
func Explain(err error) error { return explain(err) }

// explain puts a sentence for people before an error that carries a code.
func explain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && codeOf(err) == wire.CodeNone {
		return fmt.Errorf("the relay took the connection and does not answer: it may be overloaded, or not a blindrelay (%w)", err)
	}
	code := codeOf(err)
	hint, ok := hints[code]
	if _, sealed := errors.AsType[*e2e.GoAwayError](err); code == wire.CodeRefused && !sealed {
		hint = hintAstray
	}
	if ok {
		return fmt.Errorf("%s (%w)", hint, err)
	}
	return err
}

// hintAstray is for a refusal that did not come under the seal. A device that
// may not come in is told so under it.
const hintAstray = "a stream of this device did not reach its session at the server: the relay or the network brought it elsewhere, or the server has just restarted"

// codeOf finds the code that an error carries, or CodeNone.
func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*e2e.GoAwayError](err); ok {
		return e.Code
	}
	if e, ok := errors.AsType[*wire.ResetError](err); ok {
		return e.Code
	}
	if e, ok := errors.AsType[*wire.ClosedError](err); ok {
		return e.Code
	}
	return wire.CodeNone
}

// hopeless reports whether trying again at once cannot help: somebody has to
// do something first.
func hopeless(err error) bool {
	if errors.Is(err, transport.ErrWrongRelay) {
		return true
	}
	switch codeOf(err) {
	case wire.CodeVersion, wire.CodeNotAdmitted, wire.CodeTicketMissing, wire.CodeTicketRefused, wire.CodeTicketExpired,
		wire.CodeReplaced, wire.CodeTokenRefused, wire.CodeRefused, wire.CodeOff, wire.CodeVolumeLimit:
		return true
	}
	return false
}
