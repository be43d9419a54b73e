//go:build e2e && linux

package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/netns"
	"github.com/blindrelay/blindrelay/loadtest/probe"
)

// The attack is larger by hand:
//
//	go test -tags e2e -run 'TestAttack$' -timeout 1h -v ./loadtest/e2e -attack.duration 60s
var attackTime = flag.Duration("attack.duration", 0, "attack for so long with 10,000 connections and look at the relay's memory a minute later, instead of a few seconds with fewer")

// attackSite is a relay with a cable on each side:
//
//	people --- relay --- strangers
//
// People and strangers reach 10.79.0.1; the way back to every address that is
// not the people's leads to the strangers, who have all of 100.64.0.0/10.
type attackSite struct {
	people, relay, strangers *netns.Namespace
	process                  *process
	line                     string
}

func newAttackSite(t *testing.T) *attackSite {
	t.Helper()
	s := &attackSite{}
	namespaces(t, &s.people, &s.relay, &s.strangers)
	must(t, netns.Join(s.relay, "people", s.people, "eth0"))
	must(t, netns.Join(s.relay, "strangers", s.strangers, "eth0"))
	for _, device := range []string{"all", "default", "strangers"} {
		must(t, s.relay.Sysctl("net.ipv4.conf."+device+".rp_filter", "0"))
	}
	must(t, s.relay.IP("addr add 10.79.0.1/32 dev lo",
		"addr add 10.79.1.1/24 dev people", "link set people up",
		"addr add 10.79.2.1/24 dev strangers", "link set strangers up",
		"route add default via 10.79.2.2"))
	must(t, s.people.IP("addr add 10.79.1.2/24 dev eth0", "link set eth0 up", "route add default via 10.79.1.1"))
	must(t, s.strangers.IP("addr add 10.79.2.2/24 dev eth0", "link set eth0 up", "route add default via 10.79.2.1",
		"route add local 100.64.0.0/10 dev lo"))
	s.process = startIn(t, s.relay, "relay", command(context.Background(), t, "blindrelay", "serve", "--state", newState(t),
		"--admit", "open", "--listen", "10.79.0.1:4433", "--drain-timeout", "0s"))
	s.line = s.process.firstLine(t)
	return s
}

// attacker starts a program of attackKinds. It has less of the machine's cores
// than the relay and the films (nice 5), which its own would not share in the
// world.
func (s *attackSite) attacker(t *testing.T, from *netns.Namespace, p attackPlan) *process {
	t.Helper()
	p.Relay = s.line
	text, err := json.Marshal(p)
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("nice", "-n", "5", self)
	cmd.Env = append(os.Environ(), attackerEnv+"="+string(text))
	a := startIn(t, from, p.Kind, cmd)
	if p.Kind == "flood" {
		a.firstLine(t)
	}
	return a
}

// report ends an attacker and returns what it has done.
func report(t *testing.T, a *process) (r attackReport) {
	t.Helper()
	a.told = true
	must(t, a.cmd.Process.Signal(syscall.SIGTERM))
	a.wantExit(t, stopTimeout, 0)
	lines := strings.Split(strings.TrimSpace(a.stdout.String()), "\n")
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &r))
	return r
}

// metrics returns the sums of the relay's metrics, and each series under its
// name with labels.
func (s *attackSite) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.relay.Dial}}
	res, err := client.Get("http://127.0.0.1:9464/metrics")
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	all := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, labels := strings.Cut(series, "{")
		all[name] += v
		if labels {
			all[series] = v
		}
	}
	return all
}

// memory is the resident memory of the relay, the median of a second.
func (s *attackSite) memory(t *testing.T) int64 {
	t.Helper()
	var all []int64
	for range 10 {
		u, err := probe.Process(s.process.cmd.Process.Pid).Usage(t.Context())
		must(t, err)
		all = append(all, u.Memory)
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// attack is a row of the table.
type attack struct {
	name  string
	lasts time.Duration
	plans []attackPlan
}

// strangers is all that the strangers have.
var strangers = netip.MustParsePrefix("100.64.0.0/10")

// attacks are what TestAttack does, for so long or, if that is 0, in short.
func attacks(lasts time.Duration) []attack {
	connections, trickles, packets, flood, wait := 1000, 200, 1024, 6*time.Second, 11*time.Second
	if lasts > 0 {
		connections, trickles, packets, flood, wait = 10_000, 1000, 4096, lasts, lasts
	}
	anywhere, one := netip.MustParsePrefix("128.0.0.0/3"), netip.MustParsePrefix("100.100.7.0/24")
	return []attack{
		{"20,000 forged Initials a second", flood, []attackPlan{{Kind: "flood", From: anywhere, Rate: 20_000, Count: packets}}},
		{fmt.Sprintf("%d connections that say nothing", connections), wait, []attackPlan{{Kind: "silent", From: strangers, Count: connections}}},
		{fmt.Sprintf("%d that trickle", trickles), wait, []attackPlan{{Kind: "trickle", From: strangers, Count: trickles}}},
		{"one /24: 10,000 forged Initials a second, 1,270 that reconnect", flood, []attackPlan{
			{Kind: "flood", From: one, Rate: 10_000, Count: packets}, {Kind: "churn", From: one, Count: 1270},
		}},
	}
}

// attackResult is what an attack did to the films and to the relay.
type attackResult struct {
	name                string
	sent                float64 // forged packets a second
	made, refused       int64   // connections of strangers
	films               shownFilms
	visitor             attackReport
	cpu, attackers      float64 // cores of the relay and of them
	retries, limited    float64 // packets, connections
	sessions            float64 // at most
	before, peak, later int64   // bytes
}

// TestAttack watches films through a relay that is attacked in several ways,
// one after the other: no film stalls, others still get in, and the relay's
// memory comes back to where it was. In its long form the films keep 95 % of
// their rate, and the memory is back after a minute. It has the machine to
// itself, attackers included, which take their part of it.
func TestAttack(t *testing.T) {
	// allowed is how many bytes the relay may hold more besides 10 %: its heap is
	// small and has pieces that were used for the first time.
	homes, films, settles, allowed := 3, 2, 0*time.Second, int64(16<<20)
	if *attackTime > 0 {
		homes, films, settles, allowed = 4, 3, time.Minute, 4<<20
	}
	s := newAttackSite(t)
	viewers := startFilms(t, s.people, s.line, homes, films)
	if settles > 0 { // as after a restart, when all endpoints of a larger relay come
		s.under(t, attack{"storm", 12 * time.Second, []attackPlan{{Kind: "silent", From: strangers, Count: 2000}}}, viewers)
	}
	time.Sleep(2*time.Second + settles)
	calm := viewers.during(func() { time.Sleep(4*time.Second + settles/6) })
	var results []attackResult
	for _, a := range attacks(*attackTime) {
		t.Run(a.name, func(t *testing.T) {
			r := s.under(t, a, viewers)
			time.Sleep(settles)
			r.later = s.memory(t)
			if most := r.before*11/10 + allowed; settles > 0 && r.later > most {
				t.Errorf("the relay holds %.1f MiB, %.1f before", mib(r.later), mib(r.before))
			}
			if r.films.stalls > 0 {
				t.Errorf("%d films stalled", r.films.stalls)
			}
			if settles > 0 && r.films.worst < 0.95*attackFilm { // in a few seconds a hiccup of the machine is more than that
				t.Errorf("the slowest film came at %.1f %%", 100*r.films.worst/attackFilm)
			}
			if len(r.visitor.Took) == 0 {
				t.Error("nobody else gets in")
			}
			results = append(results, r)
		})
	}
	if settles == 0 && len(results) > 0 {
		eventually(t, 2*patience, "the relay's memory comes back", func() error {
			if now, most := s.memory(t), results[0].before*11/10+allowed; now > most {
				return fmt.Errorf("it holds %.1f MiB, %.1f before", mib(now), mib(results[0].before))
			}
			return nil
		})
	}
	viewers.wantWhole(t)
	t.Logf("%d films at 8 Mbit/s in %d homes; before the attacks all came at %.1f %%, the slowest at %.1f %%, %.2f s late at most\n%s", homes*films, homes,
		100*calm.rate/attackFilm/float64(homes*films), 100*calm.worst/attackFilm, calm.late.Seconds(), attackTable(results, homes*films))
}

// under attacks for a while.
func (s *attackSite) under(t *testing.T, a attack, viewers *attackViewers) attackResult {
	t.Helper()
	r := attackResult{name: a.name, before: s.memory(t)}
	first := s.metrics(t)
	relay := probe.Process(s.process.cmd.Process.Pid)
	usage, err := relay.Usage(t.Context())
	must(t, err)
	visitor := s.attacker(t, s.people, attackPlan{Kind: "visitor"})
	var running []*process
	for _, p := range a.plans {
		running = append(running, s.attacker(t, s.strangers, p))
	}
	begin := time.Now()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ; i++ {
			if u, err := relay.Usage(context.Background()); err == nil {
				r.peak = max(r.peak, u.Memory)
			}
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	r.films = viewers.during(func() {
		for time.Since(begin) < a.lasts {
			r.sessions = max(r.sessions, s.metrics(t)["blindrelay_sessions"])
			time.Sleep(500 * time.Millisecond)
		}
	})
	took := time.Since(begin).Seconds()
	close(stop)
	wait.Wait()
	after, err := relay.Usage(t.Context())
	must(t, err)
	last := s.metrics(t)
	r.cpu = (after.CPU - usage.CPU).Seconds() / took
	r.retries = last["blindrelay_retries_total"] - first["blindrelay_retries_total"]
	const limited = `blindrelay_handshakes_failed_total{code="handshake_limit"}`
	r.limited = last[limited] - first[limited]
	for _, p := range running {
		rep := report(t, p)
		r.sent += float64(rep.Sent) / took
		r.attackers += (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Seconds() / took
		r.made += rep.Made
		r.refused += rep.Refused
	}
	r.visitor = report(t, visitor)
	return r
}

// attackTable is in Markdown.
func attackTable(results []attackResult, films int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| attack\t| forged packets a second\t| strangers connected, refused\t| films, the slowest\t| latest\t| stalls\t| others get in\t| median, worst\t| cores: relay, attackers\t| sessions\t| Retry\t| refused\t| MiB before, peak, later\t|")
	fmt.Fprintln(w, "|"+strings.Repeat("---\t|", 13))
	for _, r := range results {
		var median, worst time.Duration
		if n := len(r.visitor.Took); n > 0 {
			median, worst = r.visitor.Took[n/2], r.visitor.Took[n-1]
		}
		fmt.Fprintf(w, "| %s\t| %.0f\t| %d, %d\t| %.1f %%, %.1f %%\t| %.2f s\t| %d\t| %d of %d\t| %.2f, %.2f s\t| %.2f, %.2f\t| %.0f\t| %.0f\t| %.0f\t| %.1f, %.1f, %.1f\t|\n",
			r.name, r.sent, r.made, r.refused, 100*r.films.rate/attackFilm/float64(films), 100*r.films.worst/attackFilm, r.films.late.Seconds(), r.films.stalls,
			len(r.visitor.Took), len(r.visitor.Took)+int(r.visitor.Refused), median.Seconds(), worst.Seconds(),
			r.cpu, r.attackers, r.sessions, r.retries, r.limited, mib(r.before), mib(r.peak), mib(r.later))
	}
	w.Flush()
	return b.String()
}
