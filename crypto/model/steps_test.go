package model

// take returns the state after a step, and false if the step cannot be taken.
func (w weakness) take(s state, st step) (state, bool) {
	next, ok := w.move(s, st)
	for d := range next.devices {
		if v := &next.devices[d]; !v.stream { // nothing depends on what it has carried
			v.said, v.got = 0, 0
			v.used = v.used && v.has
		}
	}
	return next, ok
}

func (w weakness) move(s state, st step) (state, bool) {
	switch st.action {
	case newInvite, revokeFile, revokeSessions, offFile, offSessions, turnOn, pairEnd:
		return w.owner(s, st)
	case pairBegin, connect, join, open, say, lookup, finish:
		return w.endpoints(s, st)
	}
	return w.fate(s, st)
}

// owner is what the owner does; pairEnd is his yes.
func (w weakness) owner(s state, st step) (state, bool) {
	v := &s.devices[st.d]
	switch st.action {
	case newInvite:
		if !s.on || s.invite {
			return s, false
		}
		s.invite, s.redeems = true, 0
		for d := range s.devices {
			s.devices[d].stale = false
		}
	case revokeFile:
		if !v.listed || v.revoking {
			return s, false
		}
		v.listed, v.revoking, v.stale = false, true, s.invite
	case revokeSessions:
		if !v.revoking {
			return s, false
		}
		v.revoking, v.barred = false, !v.listed
		v.endSessions(w == revokeLinkedOnly)
	case offFile:
		if !s.on {
			return s, false
		}
		s.on, s.ending = false, true
		s.dropInvite()
	case offSessions:
		if !s.ending {
			return s, false
		}
		s.ending, s.shut = false, true
		for d := range s.devices {
			s.devices[d].endSessions(w == offKeepsUnlinked)
		}
	case turnOn:
		if s.on || s.ending {
			return s, false
		}
		s.on, s.shut = true, false
	case pairEnd:
		if v.call.kind != pairing {
			return s, false
		}
		s.redeem(v, w)
		v.call = call{}
	}
	return s, true
}

// endpoints is what a device does, and the agent with its calls.
func (w weakness) endpoints(s state, st step) (state, bool) {
	v := &s.devices[st.d]
	pending := v.call.kind != nothing
	switch st.action {
	case pairBegin:
		if v.listed || pending {
			return s, false
		}
		other := s.devices[1-st.d].call
		taken := other.kind == pairing && !other.dead && w != inviteCheckedEarly
		if s.on && s.invite && !taken {
			v.call = call{kind: pairing}
		}
	case connect:
		if v.has || pending {
			return s, false
		}
		v.has, v.here, v.call = true, w != registerLate, call{kind: connecting}
	case join:
		if !v.has || v.linked || pending {
			return s, false
		}
		if !v.here {
			v.forget() // the agent knows of no such session, and says so
			break
		}
		v.call = call{kind: joining}
		if w == joinUnasked {
			v.call.asked, v.call.yes = true, true
		}
	case open:
		if !v.linked || v.stream || pending {
			return s, false
		}
		v.stream, v.used, v.said, v.got, v.call = true, true, 0, 0, call{kind: opening}
	case say:
		if !v.stream || !v.here || pending || v.said == maxSaid {
			return s, false
		}
		if v.said++; v.linked {
			v.got = v.said
		}
	case lookup:
		if !pending || v.call.kind == pairing || v.call.asked {
			return s, false
		}
		v.call.asked, v.call.yes = true, v.listed && (s.on || w == offUnasked)
	case finish:
		if !v.call.asked {
			return s, false
		}
		c := v.call
		v.call = call{}
		v.finish(c, w, v.listed && (s.on || w == offUnasked))
	}
	return s, true
}

// fate is what ends and what the relay does.
func (w weakness) fate(s state, st step) (state, bool) {
	v := &s.devices[st.d]
	pending := v.call.kind != nothing
	switch st.action {
	case killAgent:
		s.ending, s.shut = false, !s.on
		for d := range s.devices {
			s.devices[d].agentGone(w)
		}
	case killRelay:
		any := false
		for d := range s.devices {
			if s.devices[d].full() {
				return s, false
			}
			any = s.devices[d].cut() || any
		}
		return s, any
	case expire:
		return s, s.expire()
	case drop:
		return s, v.cut()
	case killDevice:
		if !v.has && v.call.kind != pairing || v.ghosts == maxGhosts {
			return s, false
		}
		if v.call.kind == pairing {
			v.call = call{}
		}
		was := v.linked
		v.forget()
		v.linked = was && w == linkKept
	case replayStream: // the first carrier, once more
		if !v.linked || !v.used || pending {
			return s, false
		}
		v.twice = w == numbersForgotten
		// The stream ends as a manipulated one, if it has not ended before.
		if v.stream = false; !(v.listed && s.on) { // the device list is asked before the stream is looked at
			v.has, v.here, v.linked = false, false, false
		}
	case replayLink: // the bytes that made the latest link, once more
		if w == replayJoins && v.here && !v.linked {
			v.linked = true
		}
	case stranger: // the relay connects with a key of its own
	}
	return s, true
}

// dropInvite withdraws the open invite. Who is pairing with it has lost.
func (s *state) dropInvite() {
	s.invite = false
	for d := range s.devices {
		if c := &s.devices[d].call; c.kind == pairing {
			c.dead = true
		}
	}
}

// redeem ends a conversation to which the owner has said yes.
func (s *state) redeem(v *device, w weakness) {
	good := s.on && s.invite && !v.call.dead
	if w == inviteCheckedEarly {
		good = s.on
	}
	if !good || v.stale && w != inviteAgeForgotten {
		return
	}
	s.undone = s.undone || v.stale
	v.listed, v.barred = true, false
	s.invite = false
	s.redeems++
}

// endSessions is what Revoke and CloseSessions do for a device.
func (v *device) endSessions(linkedOnly bool) {
	if linkedOnly && !v.linked {
		return
	}
	if v.ghosts = 0; v.here || v.call.ghost {
		v.call.dead = v.call.kind != nothing && v.call.kind != pairing
	}
	v.here = false
	if v.linked { // the device is told
		v.has, v.linked, v.stream = false, false, false
	}
}

// forget is the end of the device's session at the device alone.
func (v *device) forget() {
	if v.call.kind != nothing {
		v.call.cut = true
	}
	if v.here {
		v.here = false
		v.ghosts++
		v.call.ghost = v.call.kind != nothing
	}
	v.has, v.linked, v.stream = false, false, false
}

// full reports whether the loss of its link would give the device more ghosts
// than are explored.
func (v *device) full() bool {
	return v.call.kind == connecting && !v.call.cut && v.ghosts == maxGhosts
}

// cut is the end of the device's connection to the relay. It reports whether
// there was one.
func (v *device) cut() bool {
	if v.call.cut || v.call.kind == nothing && !v.linked || v.full() {
		return false
	}
	v.linked = false
	switch v.call.kind {
	case connecting: // a session that was never welcome ends with its link
		v.forget()
	case pairing:
		v.call = call{}
	case nothing:
	default:
		v.call.cut = true
	}
	return true
}

// agentGone is the end of the agent, with all that it does not write down.
func (v *device) agentGone(w weakness) {
	if v.call.kind == connecting {
		v.has = false
	}
	v.call, v.here, v.ghosts, v.linked = call{}, false, 0, false
	if w == revocationUnwritten && (v.barred || v.revoking) {
		v.listed = true
	}
	if v.revoking = false; !v.listed {
		v.barred = true // the sessions ended another way
	}
}

// expire is a minute in which nothing happens: sessions without a link end.
func (s *state) expire() (any bool) {
	for d := range s.devices {
		v := &s.devices[d]
		if v.call.kind != nothing {
			return false
		}
		any = any || v.has && !v.linked || v.ghosts > 0
		if v.ghosts = 0; !v.linked {
			v.has, v.here, v.stream = false, false, false
		}
	}
	return any
}

// finish is what becomes of a call that the device list has answered. allowed
// is what it would say now: it is asked again for each further carrier.
func (v *device) finish(c call, w weakness, allowed bool) {
	if w == registerLate && c.kind == connecting {
		c.dead = false
		if v.here = !c.cut; c.cut {
			v.ghosts++
		}
	}
	if c.dead || !c.yes {
		switch {
		case c.ghost && !c.dead:
			v.ghosts--
		case !c.ghost && !c.dead:
			v.here = false
		}
		if !c.cut && !c.ghost && v.has && !(c.kind == opening && c.dead) { // the device is told
			v.has, v.linked, v.stream = false, false, false
		}
		return
	}
	if c.cut || c.kind == opening {
		return
	}
	if v.linked = true; v.stream {
		v.resume(w, allowed)
	}
}

// resume is what a stream does on a new link.
func (v *device) resume(w weakness, allowed bool) {
	if !allowed {
		v.has, v.here, v.linked, v.stream = false, false, false, false
		return
	}
	from := v.got
	if w == resumeAtWritten {
		from = v.said
	}
	v.wrong = v.wrong || from != v.got
	v.got = v.said
}
