//go:build e2e && linux

package e2e

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/origin"
)

// downloadSize is larger by hand: go test -tags e2e -run TestDisturbed -v
// ./loadtest/e2e -download 2048. What is read before and during a disturbance
// comes at deviceLine, the rest as fast as the machine can.
var downloadSize = flag.Int64("download", 256, "MiB of each download that is disturbed")

// patience is how long a stream may stand still before the test gives up. It
// is no goal: the goals stand beside the measured gaps.
const patience = time.Minute

// disturbance is what happens to the path while somebody downloads and
// somebody watches a film.
type disturbance struct {
	name   string
	relays int      // how many there are, 1 or 2
	serve  []string // further arguments of each
	happen func(*testing.T, *scene)
}

var disturbances = []disturbance{
	{"relay killed and restarted", 1, nil, func(t *testing.T, s *scene) {
		s.during(t, "kill -9, restart", 3*time.Second, func() error {
			s.relays[0].kill()
			s.relays[0].again(t)
			return nil
		})
	}},
	{"relay killed, another takes over", 2, nil, func(t *testing.T, s *scene) {
		s.during(t, "kill -9", 3*time.Second, func() error {
			s.busy(t).kill()
			return nil
		})
	}},
	{"relay ends by SIGTERM, another takes over", 2, []string{"--drain-timeout", "10s"}, func(t *testing.T, s *scene) {
		s.drained(t, func(r *placedRelay) { r.terminate(t) })
	}},
	{"relay drained, another takes over", 2, []string{"--drain-timeout", "10s"}, func(t *testing.T, s *scene) {
		s.drained(t, func(r *placedRelay) { r.drain(t) })
	}},
	{"NAT changes its address 10 times", 1, nil, func(t *testing.T, s *scene) {
		for range 10 {
			s.during(t, "new address and port", time.Second, func() error {
				return s.comesFrom(t, s.net.rebind(t))
			})
		}
	}},
	{"device changes its network 10 times", 1, nil, func(t *testing.T, s *scene) {
		for range 5 {
			s.during(t, "Wi-Fi to mobile", time.Second, func() error {
				return s.comesFrom(t, s.net.leaveWiFi(t))
			})
			s.during(t, "mobile to Wi-Fi", time.Second, func() error {
				return s.comesFrom(t, s.net.joinWiFi(t))
			})
		}
	}},
	{"UDP cut and given back", 1, []string{"--listen-tcp", ":443"}, func(t *testing.T, s *scene) { s.udpCut(t) }},
	{"1% loss", 1, nil, func(t *testing.T, s *scene) { s.loss(t, 10) }},
	{"5% loss", 1, nil, func(t *testing.T, s *scene) { s.loss(t, 50) }},
	{"home's link down for 10 s", 1, nil, func(t *testing.T, s *scene) {
		s.during(t, "down, up", 0, func() error {
			must(t, s.net.core.IP("link set home down"))
			err := s.hold(10 * time.Second)
			must(t, s.net.core.IP("link set home up"))
			return err
		})
	}},
}

// comesFrom waits until the device sends from where a counter of the core
// counts.
func (s *scene) comesFrom(t *testing.T, counter string) error {
	t.Helper()
	return s.until("the device sends from its new address", func() bool {
		return counters(t, s.net.core)[counter] > 0
	})
}

// drained ends the relay that carries the streams, in order.
func (s *scene) drained(t *testing.T, end func(*placedRelay)) {
	t.Helper()
	s.during(t, "drain until the end", time.Second, func() error {
		r := s.busy(t)
		end(r)
		if err := s.until(r.name()+" ends", r.ended); err != nil {
			return err
		}
		r.wantExit(t, readyTimeout, 0)
		return nil
	})
}

// udpCut drops every datagram, which TCP has to take over from, and then none.
func (s *scene) udpCut(t *testing.T) {
	const enough = 1 << 20 // bytes that show what carries the streams
	var giveBack func() int64
	s.during(t, "UDP dropped", 5*time.Second, func() error {
		_, before := s.net.sent(t, 0)
		giveBack = s.net.drop(t, "meta l4proto udp")
		return s.until("TCP takes over", func() bool {
			_, now := s.net.sent(t, 0)
			return now > before+enough
		})
	})
	s.net.shape(t, deviceLine/5) // so that it lasts until QUIC is tried again
	s.during(t, "UDP given back", time.Second, func() error {
		before, _ := s.net.sent(t, 0)
		giveBack()
		// The device notices that its network is another one.
		must(t, s.net.away.IP("addr add 192.168.4.200/24 dev wifi"))
		return s.until("QUIC takes over", func() bool {
			now, _ := s.net.sent(t, 0)
			return now > before+enough
		})
	})
}

// loss drops packets on the device's hop at random for a while, of a thousand
// some.
func (s *scene) loss(t *testing.T, ofThousand int) {
	t.Helper()
	s.during(t, "packets lost for 5 s", 0, func() error {
		end := s.net.drop(t, fmt.Sprintf("numgen random mod 1000 < %d", ofThousand))
		before := s.download.got()
		err := s.hold(5 * time.Second)
		lost, came := end(), s.download.got()-before
		t.Logf("%d kB lost of the %d kB that came and more", lost/1000, came/1000)
		if lost == 0 && err == nil {
			t.Error("nothing was lost")
		}
		return err
	})
}

// TestDisturbed downloads a file and watches a film in every way that a path
// can be disturbed. One connection of the client brings the whole file, and the
// film does not stall, unless home is cut off for longer than the player's
// buffer lasts.
func TestDisturbed(t *testing.T) {
	film := origin.Film{Seed: 4, Size: *downloadSize << 20}
	sum := sumOf(film)
	var found []finding
	for _, d := range disturbances {
		t.Run(d.name, func(t *testing.T) {
			s := setScene(t, d, film)
			defer func() { found = append(found, s.found...) }()
			defer s.household.stop(t)
			s.begin(t)
			d.happen(t, s)
			s.end(t, sum)
		})
	}
	t.Logf("\n%s", table(found))
}

// scene is everything that one disturbance needs.
type scene struct {
	net       *internet
	relays    []*placedRelay
	household household
	download  *download
	player    *player
	found     []finding
}

// finding is what a disturbance did.
type finding struct {
	disturbance, part string
	times             int
	gap, goal         time.Duration // the longest without a byte; no goal: 0
	err               error         // why the stream did not go on
	least             time.Duration // content ahead of the film's picture
	stalls            int64
}

// setScene starts everything, and a download and a film.
func setScene(t *testing.T, d disturbance, film origin.Film) *scene {
	t.Helper()
	s := &scene{net: newInternet(t), found: []finding{{disturbance: d.name}}}
	for i := range d.relays {
		s.relays = append(s.relays, s.net.startRelay(t, i, d.serve...))
	}
	films, err := origin.New(origin.Config{Seed: 4, Bitrates: []int64{playerRate}})
	must(t, err)
	mux := http.NewServeMux()
	mux.Handle("/", films)
	mux.Handle("/download", serveFilm(film))
	s.household = s.net.settle(t, mux, s.relays...)
	s.download = startDownload(t, s.net, deviceURL+"download", film)
	s.player = startPlayer(t, s.net, deviceURL, films)
	return s
}

// begin waits until the player's buffer is full and both relays know the agent.
func (s *scene) begin(t *testing.T) {
	t.Helper()
	for _, r := range s.relays {
		if len(s.relays) > 1 {
			eventually(t, readyTimeout, "the agent is at "+r.name(), r.hasAgent)
		}
	}
	if err := s.until("the player's buffer is full", s.player.ready); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition, while the download goes on.
func (s *scene) until(what string, holds func() bool) error {
	deadline := time.Now().Add(patience)
	for !holds() {
		if err := s.download.over(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v", what, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return s.download.over()
}

// hold waits for a time, while the download goes on.
func (s *scene) hold(d time.Duration) error {
	end := time.Now().Add(d)
	return s.until("", func() bool { return time.Now().After(end) })
}

// errUnfinished stands where a program failed that had to disturb.
var errUnfinished = errors.New("it did not happen")

// during lets something happen, waits until bytes come again without a pause,
// and keeps the longest gap, of all that happened under the name.
func (s *scene) during(t *testing.T, part string, goal time.Duration, happen func() error) {
	t.Helper()
	i := slices.IndexFunc(s.found, func(f finding) bool { return f.part == part || f.times == 0 })
	if i < 0 {
		i = len(s.found)
		s.found = append(s.found, finding{disturbance: s.found[0].disturbance})
	}
	f := &s.found[i]
	f.part, f.goal, f.err = part, goal, errUnfinished
	s.download.gap()
	begin := time.Now()
	err := happen()
	if err == nil {
		err = s.flows()
	}
	f.err = err
	f.times++
	f.gap = max(f.gap, s.download.gap())
	if err != nil {
		t.Fatalf("%s, time %d, after %v: %v", part, f.times, time.Since(begin).Round(time.Millisecond), err)
	}
}

// flows waits until bytes have come in each tenth of a second for a second.
func (s *scene) flows() error {
	row, had, next := 0, s.download.got(), time.Now()
	return s.until("bytes come again", func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = time.Now().Add(100 * time.Millisecond)
		has := s.download.got()
		if row++; has == had {
			row = 0
		}
		had = has
		return row > 10
	})
}

// busy returns the relay that carries the streams.
func (s *scene) busy(t *testing.T) *placedRelay {
	t.Helper()
	var before, now [2]int64
	count := func(to *[2]int64) {
		for i := range s.relays {
			udp, tcp := s.net.sent(t, i)
			to[i] = udp + tcp
		}
	}
	count(&before)
	if err := s.hold(300 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	count(&now)
	if len(s.relays) > 1 && now[1]-before[1] > now[0]-before[0] {
		return s.relays[1]
	}
	return s.relays[0]
}

// end waits for the rest of the download and checks what the client has seen.
func (s *scene) end(t *testing.T, sum [sha256.Size]byte) {
	t.Helper()
	s.net.shape(t, 0)
	select {
	case <-s.download.done:
	case <-time.After(patience + time.Duration(s.download.film.Size*8/deviceLine)*time.Second):
		t.Fatalf("the download is at %d of %d bytes and does not end", s.download.got(), s.download.film.Size)
	}
	switch {
	case s.download.err != nil:
		t.Fatal(s.download.err)
	case s.download.sum != sum:
		t.Errorf("SHA-256 %x, want %x", s.download.sum, sum)
	}
	if n := s.download.connects.Load(); n != 1 {
		t.Errorf("the client made %d connections for one download, want 1", n)
	}
	eventually(t, patience, "the player's buffer is full again", func() error {
		if !s.player.ready() {
			return errors.New("it is not full")
		}
		return nil
	})
	for i := range s.found {
		s.found[i].least, s.found[i].stalls = s.player.lowest(), s.player.viewer.State().Stalls
	}
	for _, f := range s.found {
		if f.goal == 0 && f.gap >= playerBuffer {
			t.Logf("%s: nothing could come for %v, which is longer than the player's buffer", f.disturbance, f.gap)
			return
		}
	}
	s.player.check(t)
}

// hasAgent is an error until the relay has an agent.
func (r *placedRelay) hasAgent() error {
	if n, err := r.agents(); err != nil || n == 0 {
		return fmt.Errorf("it has %d agents: %w", n, err)
	}
	return nil
}

// serveFilm serves a film with Range.
func serveFilm(f origin.Film) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(f, 0, f.Size))
	})
}

// table shows findings beside their goals.
func table(found []finding) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "disturbance\tpart\ttimes\tlongest gap\tgoal\t\tfilm: least buffer\tstalls")
	for _, f := range found {
		goal, verdict, film := "-", "", "-\t-"
		if f.goal > 0 {
			goal, verdict = f.goal.String(), "met"
			if f.gap > f.goal {
				verdict = "missed"
			}
		}
		switch {
		case f.err != nil:
			verdict = "BROKEN"
		case f.times > 0 && f.least+time.Duration(f.stalls) > 0:
			film = fmt.Sprintf("%.1f s\t%d", f.least.Seconds(), f.stalls)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%.2f s\t%s\t%s\t%s\n", f.disturbance, f.part, f.times, f.gap.Seconds(), goal, verdict, film)
	}
	w.Flush() // into memory
	return b.String()
}
