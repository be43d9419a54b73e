//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ticketFor has an operator make a ticket for the agent's route.
func ticketFor(t *testing.T, key, route string, args ...string) (ticket, issuer string) {
	t.Helper()
	r := run(t, 20*time.Second, "blindrelay", append([]string{"ticket", "new", "--key", key, "--route", route}, args...)...).want(t, 0)
	return r.stdout, strings.TrimSpace(strings.TrimPrefix(r.stderr, "issuer "))
}

// TestTicket has a relay, configured by a file, admit an agent by its ticket:
// not without one, not with one that is over, then with a good one for as long
// as that lasts, and with the next one again, while `share` runs and says what
// is wrong each time.
func TestTicket(t *testing.T) {
	t.Parallel() // it waits most of its time
	dir := t.TempDir()
	key, path, file := filepath.Join(dir, "issuer.key"), filepath.Join(dir, "blindrelay.yaml"), filepath.Join(dir, "ticket")
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
	_, issuer := ticketFor(t, key, nobody)
	put(path, "admit: ticket\nissuer:\n  - "+issuer+"\n")
	run(t, 20*time.Second, "blindrelay", "check", path).want(t, 0)
	r := startRelay(t, newState(t), "127.0.0.1:0", "--config", path)

	to := startHello(t)
	state := newState(t)
	without := startAgent(t, r.address, to, state)
	without.wantSaid(t, "only with a ticket", "--ticket FILE")
	route := regexp.MustCompile(`for the route ([a-z2-7]{26})\b`).FindStringSubmatch(without.stderr.String())[1]
	without.stop(t)

	over, _ := ticketFor(t, key, route, "--from", "2020-01-31T12:00:00Z")
	put(file, over)
	a := agent{start(t, "agent", command(t.Context(), t, "blindlink", "share", "--relay", r.address, "--to", to, "--state", state, "--ticket", file)), state}
	a.wantSaid(t, "the time for which the relay admits this server is over", "2020-03-01T12:00:00Z", "file of --ticket")
	if out := a.stdout.String(); out != "" {
		t.Errorf("with a ticket that is over the agent says that it is reachable: %q", out)
	}

	good, _ := ticketFor(t, key, route, "--for", "24h")
	put(file, good)
	a.firstLine(t)
	d := open(t, a)
	wantPage(t, d, 20*time.Second)
	if status := a.link(t, "status").want(t, 0).stdout; !strings.Contains(status, "ticket until") {
		t.Errorf("status does not say until when the ticket is valid:\n%s", status)
	}

	short, _ := ticketFor(t, key, route, "--for", "6s")
	put(file, short)
	a.wantSaid(t, "ends soon")
	shown := run(t, 20*time.Second, "blindrelay", "ticket", "show", file).want(t, 0).stdout
	a.wantSaid(t, "the ticket's time was over at "+regexp.MustCompile(`until +(\S+)`).FindStringSubmatch(shown)[1])
	wantNoPage(t, d, "at home")
	put(file, good)
	wantPage(t, d, 20*time.Second)

	said := a.stderr.String() + r.stderr.String()
	for _, ticket := range []string{over, good, short} {
		if strings.Contains(said, strings.TrimSpace(ticket)) {
			t.Error("a log holds a ticket")
		}
	}
}
