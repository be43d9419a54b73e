package hostile

import (
	"errors"
	"strings"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// attack is one thing that a relay does, at one place.
type attack struct {
	name     string
	position string
	want     want
	// run makes a world, has its devices ask, and returns what the first of them
	// was told: nil if everything came whole.
	run func(w *world) error
}

// waits reports whether an attack takes seconds in which nothing happens.
func (a attack) waits() bool {
	switch a.name {
	case "drop all from a record on", "hold all back from a record on", "end a stream, again and again", "reset a stream, again and again",
		"hold a record back for a while", "hold a stream's beginning back for a while", "hold a message back for a while", "drop a stream's beginning", "drop a message", "swap two servers", "lie about who a stream is from", "lie about limits":
		return true
	}
	return false
}

// outcome is what came of an attack.
type outcome struct {
	device error // what the application at the device was told; nil: all came whole
	agent  error // what the one at home was told
	hop    error // why an endpoint left the relay
	stream error // why an agent refused a stream that the relay brought
}

// want is what must come of an attack, beside what must come of all.
type want struct {
	what  string
	holds func(o outcome) bool
}

// or joins outcomes between which chance may decide.
func (a want) or(b want) want {
	return want{a.what + ", or " + b.what, func(o outcome) bool { return a.holds(o) || b.holds(o) }}
}

// whole wants every byte to arrive: the endpoints make the damage good.
var whole = want{"all arrives", func(o outcome) bool { return o.device == nil }}

// ends wants an error of the session's or stream's that does not accuse
// anybody: this could have been a failure.
var ends = want{"an error", func(o outcome) bool { return o.device != nil }}

// tampered wants the application that reads a half to be told of tampering with
// an error that is what, and the other one to be told, too. The application at
// home may not have got the stream by then; it is told nothing in that case.
func tampered(up bool, what error) want {
	return want{sentinelName(what), func(o outcome) bool {
		if up {
			return errors.Is(o.device, e2e.ErrTampered) && (o.agent == nil || errors.Is(o.agent, what))
		}
		return errors.Is(o.device, what)
	}}
}

// refused wants the device's handshake to fail with an error that is what.
func refused(what error) want {
	return want{sentinelName(what), func(o outcome) bool { return errors.Is(o.device, what) }}
}

// reset wants the device to be told of a reset with a code.
func reset(code wire.Code) want {
	return want{"reset: " + code.String(), func(o outcome) bool {
		e, ok := errors.AsType[*wire.ResetError](o.device)
		return ok && e.Code == code
	}}
}

// leaves wants an endpoint to leave the relay with a code, and all to arrive.
func leaves(code wire.Code) want {
	return want{"left: " + code.String() + ", all arrives", func(o outcome) bool {
		closed, ok := errors.AsType[*wire.ClosedError](o.hop)
		return ok && closed.Code == code && o.device == nil
	}}
}

func sentinelName(err error) string {
	for name, e := range map[string]error{
		"ErrTampered": e2e.ErrTampered, "ErrSpliced": e2e.ErrSpliced, "ErrReplay": e2e.ErrReplay, "ErrTrailing": e2e.ErrTrailing,
		"ErrTruncated": e2e.ErrTruncated, "ErrHandshake": e2e.ErrHandshake, "ErrWrongServer": e2e.ErrWrongServer,
	} {
		if err == e {
			return name
		}
	}
	return err.Error()
}

// accuses reports whether a sentence says who did it.
func accuses(sentence string) bool { return strings.Contains(sentence, "the relay or the network") }

// blamed reports whether an error shows that somebody on the way did it.
func blamed(err error) bool {
	return errors.Is(err, e2e.ErrTampered) || errors.Is(err, e2e.ErrHandshake) || errors.Is(err, e2e.ErrWrongServer)
}

// Attack is one thing that a relay does, at one place.
type Attack struct{ attack attack }

// Honest returns what a relay does that is no attack: everything must arrive.
func Honest() []Attack { return listed(honest()) }

// Attacks returns all attacks that this package knows.
func Attacks() []Attack {
	return listed(attacksOnRecords(), attacksOnPrefaces(), attacksOnHandshakes(), attacksAcross(), attacksByReplay(), attacksByImpostors(), attacksInFrames())
}

func listed(lists ...[]attack) (all []Attack) {
	for _, list := range lists {
		for _, a := range list {
			all = append(all, Attack{a})
		}
	}
	return all
}
