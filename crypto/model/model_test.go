package model

import "fmt"

// state is everything that decides what may happen next, and what the
// invariants need to know of what has happened.
type state struct {
	on      bool  // the owner allows remote access
	ending  bool  // off is written, the sessions are not ended yet
	shut    bool  // off has returned
	invite  bool  // one is open
	redeems uint8 // devices that the latest invite has paired
	undone  bool  // a device came back with an invite from before its revocation
	devices [2]device
}

type device struct {
	listed   bool
	revoking bool // the revocation is written, the sessions are not ended yet
	barred   bool // the revocation has returned, and no new pairing has undone it
	stale    bool // the device was revoked after the open invite was made

	has    bool  // the device has a session
	here   bool  // the agent has it, too
	linked bool  // it has a link
	ghosts uint8 // sessions that the agent has and the device has forgotten
	call   call

	used   bool  // the session has had a stream
	stream bool  // and has it still
	said   uint8 // records that each end has written on it
	got    uint8 // records that each end has read
	wrong  bool  // a reader got another record than the next one
	twice  bool  // one stream number made two streams
}

// call is what of a device is on its way into the agent. A device has one at a
// time.
type call struct {
	kind  kind
	asked bool // the device list was asked
	yes   bool // and it said so
	cut   bool // its hop is gone
	dead  bool // what it is for has ended
	ghost bool // the device has forgotten the session that it is for
}

type kind uint8

const (
	nothing kind = iota
	connecting
	joining
	opening // a stream
	pairing
)

// A step is one thing that somebody does. d is the device it concerns.
type step struct {
	action action
	d      uint8
}

type action uint8

const (
	newInvite action = iota
	revokeFile
	revokeSessions
	offFile
	offSessions
	turnOn
	killAgent
	killRelay
	expire
	pairBegin
	pairEnd
	connect
	join
	open
	lookup
	finish
	say
	drop
	killDevice
	replayStream
	replayLink
	stranger
	actions // how many there are
)

func (a action) String() string {
	return [...]string{
		"newInvite", "revokeFile", "revokeSessions", "offFile", "offSessions", "turnOn", "killAgent", "killRelay", "expire", "pairBegin", "pairEnd",
		"connect", "join", "open", "lookup", "finish", "say", "drop", "killDevice", "replayStream", "replayLink", "stranger",
	}[a]
}

// shared reports whether an action concerns no device in particular.
func (a action) shared() bool {
	switch a {
	case newInvite, offFile, offSessions, turnOn, killAgent, killRelay, expire, stranger:
		return true
	}
	return false
}

func (s step) String() string {
	if s.action.shared() {
		return s.action.String()
	}
	return fmt.Sprintf("%s(%d)", s.action, s.d)
}

// steps are all that there are.
func steps() (all []step) {
	for a := range actions {
		for d := range uint8(2) {
			if d == 0 || !a.shared() {
				all = append(all, step{a, d})
			}
		}
	}
	return all
}

// Bounds of the exploration.
const (
	maxSaid   = 2
	maxGhosts = 2
)

// paired is where every path begins: both devices are on the list, and nobody
// is connected.
func paired() state {
	s := state{on: true}
	for d := range s.devices {
		s.devices[d].listed = true
	}
	return s
}

// weakness is one deliberate mistake. The zero one is none.
type weakness uint8

const (
	sound               weakness = iota
	registerLate                 // a session is known to Revoke only when it was admitted
	revokeLinkedOnly             // Revoke ends only sessions that have a link
	joinUnasked                  // a JOIN needs no word of the device list
	offKeepsUnlinked             // off ends only sessions that have a link
	offUnasked                   // the device list does not know of off
	resumeAtWritten              // what was written when a link broke is taken for read
	numbersForgotten             // stream numbers may be used twice
	inviteCheckedEarly           // whether an invite is open is asked when pairing begins
	revocationUnwritten          // it is in memory only
	replayJoins                  // the proof in a JOIN is worth something on another link
	inviteAgeForgotten           // an old invite pairs a revoked device
	linkKept                     // the agent keeps the link of a device that is gone
	weaknesses
)

func (w weakness) String() string {
	return [...]string{
		"sound", "registerLate", "revokeLinkedOnly", "joinUnasked", "offKeepsUnlinked", "offUnasked", "resumeAtWritten", "numbersForgotten",
		"inviteCheckedEarly", "revocationUnwritten", "replayJoins", "inviteAgeForgotten", "linkKept",
	}[w]
}
