package main

import (
	"fmt"
	"io"
	"time"
)

// A film plays if its line carries filmNeeds, in bits per second: a film at 8
// Mbit/s has scenes that take more, and what carries it takes a little.
const filmNeeds = 10e6

// judge says whether a film at 8 Mbit/s would play as far as this side knows,
// or else what stands in the way first.
func (s *side) judge() (plays bool, why string) {
	const no = "would not play: "
	switch {
	case s.Blocked != "":
		return false, no + s.Blocked
	case len(s.Relays) == 0:
		return false, no + s.Lookup
	case s.Origin != nil && s.Origin.Error != "":
		return false, no + "the media server: " + s.Origin.Error
	}
	reached, best, lines := false, 0.0, ""
	for _, r := range s.Relays {
		reached = reached || r.UDP.OK || r.TCP.OK
		line := r.Down
		if s.Role == "share" {
			line = r.Up
		}
		if line == nil {
			continue
		}
		best = max(best, line.Rate)
		if lines == "" {
			lines = line.Error
		}
	}
	switch {
	case !reached:
		return false, no + "no relay can be reached. " + s.Relays[0].UDP.Error
	case best >= filmNeeds && s.Role == "share":
		return true, "would play, if the device's line does as well"
	case best >= filmNeeds:
		return true, "would play, if the server's line does as well (`blindlink doctor` at home)"
	case best > 0:
		return false, fmt.Sprintf("%sthe best line carries %s, and it takes %s; ask for a lower bitrate in the player, or use a relay that is nearer", no, rate(best), rate(filmNeeds))
	case !s.token:
		return false, "cannot be told: the line is measured with the right of a paired device, and there is none; run `blindlink invite`"
	}
	for _, a := range s.Agent {
		if a.Error != "" {
			return false, no + a.Error
		}
	}
	return false, no + lines
}

func (e *examination) print(w io.Writer) error {
	t := table(w)
	for _, s := range e.Sides {
		s.print(t)
	}
	if b := e.Buffers; b != nil {
		advice := b.Advice
		if advice == "" {
			advice = "large enough"
		}
		fmt.Fprintf(t, "socket buffers\treceive %s, send %s: %s\n", size(int64(b.Receive)), size(int64(b.Send)), advice)
	}
	for _, s := range e.Sides {
		fmt.Fprintf(t, "8 Mbit/s film\t%s: %s\n", s.Server, s.Verdict)
	}
	return t.Flush()
}

func (s *side) print(t io.Writer) {
	fmt.Fprintf(t, "%s\t%s\n", s.Role, s.Server)
	if s.Blocked != "" {
		fmt.Fprintf(t, "  state\t%s\n", s.Blocked)
	}
	for _, a := range s.Agent {
		fmt.Fprint(t, "  agent's ")
		printRelay(t, a)
		printLimits(t, "    ", a)
	}
	if s.Lookup != "" {
		fmt.Fprintf(t, "  name\t%s\n", s.Lookup)
	}
	for _, r := range s.Relays {
		at := r.Relay
		if r.Address != "" {
			at += " (" + r.Address + ")"
		}
		fmt.Fprintf(t, "  relay\t%s\n", at)
		fmt.Fprintf(t, "    UDP\t%v\n    TCP\t%v\n", r.UDP, r.TCP)
		if r.Packets != nil {
			fmt.Fprintf(t, "    MTU\t%s\n", r.Packets.text("1500 and more"))
		}
		if r.Moves != nil {
			fmt.Fprintf(t, "    address change\t%s\n", r.Moves.text("connections go on"))
		}
		if r.Up != nil {
			fmt.Fprintf(t, "    up\t%v\n", r.Up)
		}
		if r.Down != nil {
			fmt.Fprintf(t, "    down\t%v\n", r.Down)
		}
	}
	if s.More > 0 {
		fmt.Fprintf(t, "  relays\t%d more were not examined\n", s.More)
	}
	if o := s.Origin; o != nil {
		text := o.Error
		if text == "" {
			text = fmt.Sprintf("%s after %v", o.Answer, o.After.Round(100*time.Microsecond))
		}
		fmt.Fprintf(t, "  media server\t%s: %s\n", o.Address, text)
	}
}

// String is for people.
func (c carrierReport) String() string {
	if !c.OK {
		return c.Error
	}
	if c.RTT == 0 {
		return "works"
	}
	return fmt.Sprintf("works, round trip %v", c.RTT.Round(100*time.Microsecond))
}

// text is for people; good is what it says when all is well.
func (p *pathReport) text(good string) string {
	if p.OK {
		return good
	}
	return p.Error
}

// String is for people.
func (l *lineReport) String() string {
	if l.Error != "" {
		return l.Error
	}
	return rate(l.Rate)
}

// rate writes bits per second for people.
func rate(bits float64) string { return fmt.Sprintf("%.1f Mbit/s", bits/1e6) }
