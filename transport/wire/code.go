package wire

import (
	"fmt"
	"maps"
	"slices"
)

// Code is the one vocabulary of endings: a QUIC application error code on
// stream resets and connection closes, the code in a GOODBYE frame, a metric
// label and a word in logs. Numbers are never reused or changed.
//
// Codes below 0x100 are said by relays. Codes from 0x100 on are said by
// endpoints; a relay passes them through a stream unchanged and turns anything
// else that an endpoint says into [CodeCancelled], so that no endpoint can
// speak in the relay's name.
type Code uint16

// Codes of the relay.
const (
	CodeNone           Code = 0x00 // an orderly end, nothing went wrong
	CodeInternal       Code = 0x01 // the relay failed in a way that it has no other word for
	CodeProtocol       Code = 0x02 // a frame is malformed, out of order, or of an unknown mandatory type
	CodeFrameTooLarge  Code = 0x03 // a frame is longer than its type allows
	CodeVersion        Code = 0x04 // no common minor version
	CodeSilent         Code = 0x05 // the endpoint did not say what the protocol expects within its deadline
	CodeShutdown       Code = 0x06 // the relay is going away
	CodeNotAdmitted    Code = 0x07 // the operator admits no agent with this route
	CodeReplaced       Code = 0x08 // a newer instance of the agent with the same route key took over
	CodeRouteUnknown   Code = 0x09 // no agent serves this route here
	CodeTokenRefused   Code = 0x0a // the agent does not list this token
	CodeMemory         Code = 0x0b // the relay's buffer memory is fully promised to other streams
	CodeTooManyStreams Code = 0x0c // the agent's connection has no stream to spare
	CodeAgentGone      Code = 0x0d // the agent's connection ended while the stream was open
	CodeDeviceGone     Code = 0x0e // the device's connection ended while the stream was open
	CodeTooManyTokens  Code = 0x0f // a registration lists more tokens than MaxTokens
	CodeDraining       Code = 0x10 // the relay is being emptied: it takes no new connection and asks the others to leave
	CodeTooManyConns   Code = 0x11 // the agent has MaxConnections connections to this relay already
	CodeMeasureLimit   Code = 0x12 // the connection is measuring already, or has measured as much as it may
	CodeTicketMissing  Code = 0x13 // the relay admits agents by tickets, and this one shows none
	CodeTicketRefused  Code = 0x14 // the agent's ticket is not valid here: not signed by an issuer of this relay, for another route, or malformed
	CodeTicketExpired  Code = 0x15 // the time for which the agent was admitted is over
	CodeRelayFull      Code = 0x16 // the relay has as many connections as it takes
	CodeAddressLimit   Code = 0x17 // the relay has as many connections from this address as it takes
	CodeAdmitFailed    Code = 0x18 // the relay could not find out whether it admits the agent
	CodeHandshakeLimit Code = 0x19 // the relay takes no more handshakes at this time, all together or from this address
	CodeRouteLimit     Code = 0x1a // the relay has as many routes as it takes
	CodeDeviceLimit    Code = 0x1b // the route has as many devices at a time as it may
	CodeStreamLimit    Code = 0x1c // the route has as many streams at a time as it may
	CodeVolumeLimit    Code = 0x1d // the route has used up its volume of this month
	CodeRouteRate      Code = 0x1e // the route forwards as fast as it may
	CodeDeviceRate     Code = 0x1f // the device forwards as fast as it may
	CodeEgressRate     Code = 0x20 // the relay forwards as fast as it may, and shares that among its routes
	CodeRelayStreams   Code = 0x21 // the relay forwards as many streams as it takes
)

// Codes of the endpoints.
const (
	CodeCancelled Code = 0x100 // the application is no longer interested
	CodeRefused   Code = 0x101 // the agent refuses this stream: unknown session, device, or kind of stream
	CodeTampered  Code = 0x102 // what arrived is not what the other endpoint sent
	CodeOff       Code = 0x103 // the owner turned remote access off
	CodeBusy      Code = 0x104 // the agent has no room for another handshake or stream
	CodeTimeout   Code = 0x105 // the other endpoint did not answer in time
)

var codeNames = map[Code]string{
	CodeNone:           "none",
	CodeInternal:       "internal",
	CodeProtocol:       "protocol",
	CodeFrameTooLarge:  "frame_too_large",
	CodeVersion:        "version",
	CodeSilent:         "silent",
	CodeShutdown:       "shutdown",
	CodeNotAdmitted:    "not_admitted",
	CodeReplaced:       "replaced",
	CodeRouteUnknown:   "route_unknown",
	CodeTokenRefused:   "token_refused",
	CodeMemory:         "memory",
	CodeTooManyStreams: "too_many_streams",
	CodeAgentGone:      "agent_gone",
	CodeDeviceGone:     "device_gone",
	CodeTooManyTokens:  "too_many_tokens",
	CodeDraining:       "draining",
	CodeTooManyConns:   "too_many_conns",
	CodeMeasureLimit:   "measure_limit",
	CodeTicketMissing:  "ticket_missing",
	CodeTicketRefused:  "ticket_refused",
	CodeTicketExpired:  "ticket_expired",
	CodeRelayFull:      "relay_full",
	CodeAddressLimit:   "address_limit",
	CodeAdmitFailed:    "admit_failed",
	CodeHandshakeLimit: "handshake_limit",
	CodeRouteLimit:     "route_limit",
	CodeDeviceLimit:    "device_limit",
	CodeStreamLimit:    "stream_limit",
	CodeVolumeLimit:    "volume_limit",
	CodeRouteRate:      "route_rate",
	CodeDeviceRate:     "device_rate",
	CodeEgressRate:     "egress_rate",
	CodeRelayStreams:   "relay_streams",
	CodeCancelled:      "cancelled",
	CodeRefused:        "refused",
	CodeTampered:       "tampered",
	CodeOff:            "off",
	CodeBusy:           "busy",
	CodeTimeout:        "timeout",
}

// String returns the code's name, as logs and metric labels write it.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("code_0x%x", uint16(c))
}

// Codes returns every defined code in ascending order, for metrics that must
// exist at zero from the start.
func Codes() []Code {
	return slices.Sorted(maps.Keys(codeNames))
}

// FromEndpoint reports whether c is a code that endpoints may say to each
// other through a relay.
func (c Code) FromEndpoint() bool { return c >= 0x100 }

// FromQUIC turns a QUIC application error code into a Code. Codes that do not
// fit become [CodeInternal].
func FromQUIC(v uint64) Code {
	if v > 0xffff {
		return CodeInternal
	}
	return Code(v)
}
