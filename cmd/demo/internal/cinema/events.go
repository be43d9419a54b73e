package cinema

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// The live view travels through the relay that it shows. Four events a second
// of under 1 KiB are 4 kB/s of the traffic it reports. They are counted like
// everything else, and each event says how much the view itself has been sent,
// so that the page can name its own share.
const (
	eventEvery    = 250 * time.Millisecond
	eventDeadline = 10 * time.Second // for one event to be written
	maxViewers    = 32               // live views at once
	toAgentSample = 64               // bytes of that direction's sample in an event; the other's is sent whole
)

// event is the data of one server-sent event of /wire.
type event struct {
	Millis   int64     `json:"ms"` // since the Wire began
	Streams  int       `json:"streams"`
	Own      uint64    `json:"own"` // bytes of all events so far, before they were sealed
	ToDevice eventFlow `json:"toDevice"`
	ToAgent  eventFlow `json:"toAgent"`
}

type eventFlow struct {
	Bytes uint64 `json:"bytes"`
	Last  string `json:"last"` // hex, oldest byte first
}

// serveWire streams events until the client leaves (server-sent events, WHATWG
// HTML section 9.2).
func (s *Cinema) serveWire(w http.ResponseWriter, r *http.Request) {
	select {
	case s.viewers <- struct{}{}:
		defer func() { <-s.viewers }()
	default:
		http.Error(w, "too many pages watch this relay: close one", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for {
		if err := out.SetWriteDeadline(time.Now().Add(eventDeadline)); err != nil {
			return
		}
		data, err := s.nextEvent()
		if err != nil {
			return
		}
		n, err := w.Write(data)
		s.ownBytes.Add(uint64(n))
		if err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// nextEvent returns one event in its wire form.
func (s *Cinema) nextEvent() ([]byte, error) {
	snap := s.wire.Snapshot()
	up := snap.ToAgent.Last
	up = up[max(0, len(up)-toAgentSample):]
	data, err := json.Marshal(event{
		Millis:   snap.Elapsed.Milliseconds(),
		Streams:  snap.Streams,
		Own:      s.ownBytes.Load(),
		ToDevice: eventFlow{snap.ToDevice.Bytes, hex.EncodeToString(snap.ToDevice.Last)},
		ToAgent:  eventFlow{snap.ToAgent.Bytes, hex.EncodeToString(up)},
	})
	return fmt.Appendf(nil, "data: %s\n\n", data), err
}
