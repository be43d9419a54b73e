package model

// admitted is how many sessions of a device the agent serves: those that only
// wait for the word of the device list are none.
func (v *device) admitted() int {
	n := int(v.ghosts)
	if v.here {
		n++
	}
	if v.call.kind == connecting && (v.here || v.call.ghost && !v.call.dead) {
		n--
	}
	return n
}

// invariants is how many violated knows.
const invariants = 11

// violated names an invariant that a step from one state to another breaks, or
// returns "".
func violated(from state, st step, to state) string {
	for d := range to.devices {
		was, v := &from.devices[d], &to.devices[d]
		up := v.linked && !was.linked
		switch {
		case v.barred && (v.linked || v.admitted() > 0):
			return "a revoked device has no admitted session after the revocation has returned"
		case st.action == revokeSessions && int(st.d) == d && (v.here || v.ghosts > 0):
			return "no session survives its revocation"
		case to.shut && (v.linked || v.admitted() > 0):
			return "after off nothing is admitted until on"
		case up && !(st.action == finish && int(st.d) == d && was.call.asked && was.call.yes):
			return "a link comes up only when the device list has said yes to it"
		case v.call.asked && v.call.yes && !was.call.asked && !(from.on && was.listed):
			return "the device list says yes only to a listed device while access is on"
		case v.linked && !(v.has && v.here):
			return "a link has the session's device at its other end"
		case v.wrong || v.got > v.said:
			return "a resumed stream continues exactly at the record where it was"
		case v.twice:
			return "a stream number never opens two streams"
		case v.listed && was.barred && v.barred:
			return "a revoked device is listed again only by a pairing"
		}
	}
	switch {
	case to.redeems > 1:
		return "an invite is used once"
	case to.undone:
		return "an invite from before its revocation pairs a device no more"
	}
	return ""
}
