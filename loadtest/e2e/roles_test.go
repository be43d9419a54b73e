//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// relay is a running `blindrelay serve`.
type relay struct {
	*process
	state   string
	address string // HOST:PORT#PIN, as it printed it
	ops     string // HOST:PORT of /metrics
}

// host returns the relay's HOST:PORT.
func (r relay) host() string {
	host, _, _ := strings.Cut(r.address, "#")
	host, _, _ = strings.Cut(host, "/")
	return host
}

// startRelay starts a relay with a state directory and waits for its line.
func startRelay(t *testing.T, state, listen string, args ...string) relay {
	t.Helper()
	r := relay{state: state, ops: freeAddress(t)}
	args = append([]string{"serve", "--listen", listen, "--state", state, "--ops", r.ops}, args...)
	r.process = start(t, "relay", command(context.Background(), t, "blindrelay", args...))
	r.address = r.firstLine(t)
	host, pin, ok := strings.Cut(r.address, "#")
	if _, _, err := net.SplitHostPort(host); err != nil || !ok || len(pin) != 43 {
		t.Fatalf("the relay's line is %q, want HOST:PORT#PIN", r.address)
	}
	return r
}

// openRelay starts a relay that admits every agent, on a port of its own.
func openRelay(t *testing.T) relay {
	t.Helper()
	return startRelay(t, newState(t), "127.0.0.1:0", "--admit", "open")
}

// again starts the relay anew with the same state on the same port, after it
// ended.
func (r relay) again(t *testing.T, args ...string) relay {
	t.Helper()
	if host, _, _ := strings.Cut(r.address, "#"); strings.Contains(host, "/") {
		// The port was taken on TCP when the relay chose it.
		ip, _, _ := net.SplitHostPort(r.host())
		_, tcp, _ := strings.Cut(host, "/")
		args = append(args, "--listen-tcp", net.JoinHostPort(ip, tcp))
	}
	n := startRelay(t, r.state, r.host(), args...)
	if n.address != r.address {
		t.Fatalf("the relay with the same state printed %q before and %q now", r.address, n.address)
	}
	return n
}

// agent is a running `blindlink share`.
type agent struct {
	*process
	state string
}

// startAgent starts `share` without waiting for anything.
func startAgent(t *testing.T, relayAddress, to, state string) agent {
	t.Helper()
	cmd := command(context.Background(), t, "blindlink", "share", "--relay", relayAddress, "--to", to, "--state", state)
	return agent{start(t, "agent", cmd), state}
}

// share starts `share` and waits until it is reachable.
func share(t *testing.T, r relay, to string) agent {
	t.Helper()
	a := startAgent(t, r.address, to, newState(t))
	a.firstLine(t)
	return a
}

// link runs one of the owner's commands on the agent's state.
func (a agent) link(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, 20*time.Second, "blindlink", append(args, "--state", a.state)...)
}

// invite returns a fresh invite's text.
func (a agent) invite(t *testing.T, args ...string) string {
	t.Helper()
	r := a.link(t, append([]string{"invite"}, args...)...).want(t, 0)
	text := strings.TrimSpace(r.stdout)
	if !strings.HasPrefix(text, "BR1:") || strings.ContainsAny(text, "\n") {
		t.Fatalf("the invite has to be one line that starts with BR1: %v", r)
	}
	return text
}

// device is a running `blindlink open`.
type device struct {
	*process
	state string
	url   string // of the local port, with a slash at its end
}

// startDevice starts `open` without waiting for anything.
func startDevice(t *testing.T, state string, args ...string) device {
	t.Helper()
	args = append([]string{"open", "--listen", "127.0.0.1:0", "--state", state}, args...)
	return device{process: start(t, "device", command(context.Background(), t, "blindlink", args...)), state: state}
}

// open pairs a new device with the agent and waits for its local port.
func open(t *testing.T, a agent, args ...string) device {
	t.Helper()
	d := startDevice(t, newState(t), a.invite(t, args...))
	d.url = d.awaitURL(t)
	return d
}

// reopen starts `open` again, with what the device learned when it paired.
func (d device) reopen(t *testing.T) device {
	t.Helper()
	d.stop(t)
	n := startDevice(t, d.state)
	n.url = n.awaitURL(t)
	return n
}

func (d device) awaitURL(t *testing.T) string {
	t.Helper()
	url := d.firstLine(t)
	if !strings.HasPrefix(url, "http://127.0.0.1:") || !strings.HasSuffix(url, "/") {
		t.Fatalf("the device's line is %q, want http://127.0.0.1:PORT/", url)
	}
	return url
}

// newState returns a path for a state directory that does not exist yet.
func newState(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "state")
}

// freeAddress returns a loopback address whose TCP port was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Below the ports that the system gives to outgoing connections, one of
		// which could take it meanwhile.
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free between 20000 and 30000")
	return ""
}

// pageLimit is how long a request may take. A device's port holds one for 15 s
// while its server is away.
const pageLimit = 25 * time.Second

// get fetches a URL whole on a connection of its own.
func get(url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), pageLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(b), err
}

// wantGet is one attempt to fetch a page that must be as told.
func wantGet(url, want string) error {
	status, body, err := get(url)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK || body != want:
		return fmt.Errorf("status %d, body %.200q, want 200 and %q", status, body, want)
	}
	return nil
}

// metric returns the sum of a metric's samples that hold the label, such as
// `code="protocol"`; an empty label sums all.
func (r relay) metric(name, label string) (sum float64, err error) {
	status, body, err := get("http://" + r.ops + "/metrics")
	if err != nil || status != http.StatusOK {
		return 0, fmt.Errorf("metrics: status %d, %v", status, err)
	}
	found := false
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if base, labels, _ := strings.Cut(series, "{"); base == name && strings.Contains(labels, label) {
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				return 0, fmt.Errorf("metrics: %q: %v", line, err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		return 0, fmt.Errorf("metrics hold no %s{%s}", name, label)
	}
	return sum, nil
}

// mustWrite writes a file for a test.
func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
