package endpoint

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// LimitStatus is the relay's latest word on one of its limits.
type LimitStatus struct {
	Name  string    `json:"name"`          // of the code in transport/wire, such as "volume_limit"
	Limit uint64    `json:"limit"`         // bit/s, bytes, or a number
	Left  uint64    `json:"left"`          // of that, when the relay said it
	Said  time.Time `json:"said"`          // when that was
	Back  time.Time `json:"back,omitzero"` // when there will be more, if the relay knows
	// Met: it has held something up, or ended it, within the last 30 s. A volume
	// that is used up stays met.
	Met  bool   `json:"met"`
	Text string `json:"text"` // for people
}

const (
	// limitFor is how long a limit counts as met after the relay has said so. A
	// relay repeats that each 10 s.
	limitFor = 30 * time.Second
	// sayLimitEvery is the least pause between two lines about one limit.
	sayLimitEvery = time.Minute
	// volumeWarning is the share of a volume, in percent, that the log tells of.
	volumeWarning = 80
)

// limitStatus merges what several connections to a relay have said: the latest
// word on each limit counts.
func limitStatus(now time.Time, said ...[]hop.Limit) []LimitStatus {
	var latest []hop.Limit
	for _, l := range slices.Concat(said...) {
		i := slices.IndexFunc(latest, func(have hop.Limit) bool { return have.Code == l.Code })
		switch {
		case i < 0:
			latest = append(latest, l)
		case l.Received.After(latest[i].Received):
			latest[i] = l
		}
	}
	slices.SortFunc(latest, func(a, b hop.Limit) int { return cmp.Compare(a.Code, b.Code) })
	var all []LimitStatus
	for _, l := range latest {
		all = append(all, LimitStatus{
			Name: l.Code.String(), Limit: l.Limit.Limit, Left: l.Left, Said: l.Received, Back: limitBack(l),
			Met: limitMet(l, now), Text: limitText(l, now),
		})
	}
	return all
}

// limitBack is when there will be more; zero if the relay does not know.
func limitBack(l hop.Limit) time.Time {
	if l.RetryAfter == 0 {
		return time.Time{}
	}
	return l.Received.Add(time.Duration(l.RetryAfter) * time.Second)
}

// limitMet reports whether a limit holds something up.
func limitMet(l hop.Limit, now time.Time) bool {
	if l.Code == wire.CodeVolumeLimit {
		back := limitBack(l)
		return l.Left == 0 && (back.IsZero() || now.Before(back))
	}
	return l.Left == 0 && now.Sub(l.Received) < limitFor
}

// limitText puts a limit into words.
func limitText(l hop.Limit, now time.Time) string {
	limit, left := l.Limit.Limit, min(l.Left, l.Limit.Limit)
	used, fresh := limit-left, now.Sub(l.Received) < limitFor
	reached := ""
	if limitMet(l, now) {
		reached = " (reached)"
	}
	switch l.Code {
	case wire.CodeVolumeLimit:
		return volumeText(l, now)
	case wire.CodeRouteRate:
		return "at most " + rate(limit) + " for this server" + reached
	case wire.CodeDeviceRate:
		return "at most " + rate(limit) + " for each device" + reached
	case wire.CodeEgressRate:
		if reached != "" {
			reached = " (busy now)"
		}
		return "the relay shares " + rate(limit) + " among its servers" + reached
	case wire.CodeDeviceLimit:
		if fresh {
			return fmt.Sprintf("%d of %d devices at a time%s", used, limit, reached)
		}
		return fmt.Sprintf("at most %d devices at a time", limit)
	case wire.CodeStreamLimit:
		if fresh {
			return fmt.Sprintf("%d of %d streams at a time%s", used, limit, reached)
		}
		return fmt.Sprintf("at most %d streams at a time", limit)
	case wire.CodeRelayStreams:
		if fresh {
			return fmt.Sprintf("the relay forwards %d of %d streams%s", used, limit, reached)
		}
		return fmt.Sprintf("the relay forwards at most %d streams", limit)
	case wire.CodeMemory:
		if fresh {
			return fmt.Sprintf("the relay has %s of %s of buffers left%s", size(left), size(limit), reached)
		}
		return fmt.Sprintf("the relay has %s of buffers", size(limit))
	}
	return l.Code.String()
}

// volumeText says what is left of a month's volume, and until when that has to
// do. Months end in UTC.
func volumeText(l hop.Limit, now time.Time) string {
	limit, left, back := l.Limit.Limit, min(l.Left, l.Limit.Limit), limitBack(l)
	if !back.IsZero() && !now.Before(back) {
		return size(limit) + " a month" // another one has begun
	}
	text := "nothing"
	if left > 0 {
		text = size(left)
	}
	text += " of " + size(limit) + " left"
	switch {
	case back.IsZero():
	case back.Sub(now) > 20*time.Hour:
		text += " until " + back.UTC().Round(time.Hour).Format("2 January") // clocks differ
	default:
		text += " until " + back.UTC().Round(time.Minute).Format("15:04 UTC")
	}
	return text
}

// rate writes bits per second.
func rate(n uint64) string { return scaled(n, 1000, "") + "bit/s" }

// size writes bytes, in the units in which an operator sets them.
func size(n uint64) string { return scaled(n, 1024, "i") + "B" }

// scaled writes a number with a prefix, decimal (SI) or binary (IEC 80000-13).
func scaled(n uint64, factor float64, binary string) string {
	prefixes := []string{"", "k", "M", "G", "T", "P", "E"}
	if binary != "" {
		prefixes[1] = "K"
	}
	f, i := float64(n), 0
	for f >= factor-0.05 && i < len(prefixes)-1 { // what would be written as 1000.0
		f /= factor
		i++
	}
	if i == 0 {
		binary = ""
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + prefixes[i] + binary
}

// limitLog tells the log of limits that are met, and of most and all of a volume,
// once a minute at most of each: a relay may say now this and now that. It
// belongs to who has looked at it first.
type limitLog struct {
	said      map[wire.Code]time.Time // when the log heard of it; nil before the first
	used      int                     // of the volume, in percent, that was told of; 0 again in another month
	most, all time.Time               // when the log heard that so much of the volume is used
}

// look says what is new among limits, of the relay that where names.
func (g *limitLog) look(log *slog.Logger, where string, limits []hop.Limit, now time.Time) {
	for _, l := range limits {
		if l.Code == wire.CodeVolumeLimit {
			g.volume(log, where, l, now)
			continue
		}
		if said := g.said[l.Code]; !limitMet(l, now) || !said.IsZero() && now.Sub(said) < sayLimitEvery {
			continue
		}
		if g.said == nil {
			g.said = make(map[wire.Code]time.Time)
		}
		g.said[l.Code] = now
		log.Info("a limit of the relay is reached", "relay", where, "code", l.Code.String(), "limit", limitText(l, now))
	}
}

func (g *limitLog) volume(log *slog.Logger, where string, l hop.Limit, now time.Time) {
	limit := l.Limit.Limit
	if limit == 0 {
		return
	}
	used, how, said := 0, "", (*time.Time)(nil)
	switch left := float64(min(l.Left, limit)) / float64(limit); {
	case left == 0:
		used, how, said = 100, "all", &g.all
	case 100*(1-left) >= volumeWarning:
		used, how, said = volumeWarning, "most", &g.most
	}
	if used > g.used {
		if !said.IsZero() && now.Sub(*said) < sayLimitEvery {
			return
		}
		*said = now
		log.Warn(how+" of what the relay forwards for this server in a month is used", "relay", where, "code", l.Code.String(), "limit", limitText(l, now))
	}
	g.used = used
}
