//go:build e2e && linux

package e2e

import (
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/loadtest/canary"
	"github.com/blindrelay/blindrelay/loadtest/localrelay"
	blindrelay "github.com/blindrelay/blindrelay/relay"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// What a party freezes: each of two devices has as many downloads as
// uploads that nobody reads, each direction of each fills a jitter buffer.
const (
	frozenEach   = 5
	jitterBuffer = 256 << 10 // with it an endpoint's log has room for all that the path takes
)

// TestCanaries looks for every secret of endpoints wherever the relay could have
// one. The relay is built as it is shipped; the endpoints are built to tell
// their secrets to the test, and for the controls to leak them to the relay.
// They tell identities, invites, the traffic secrets of their TLS, what is
// exported from it, and all that is derived of that; not the ephemeral keys of
// the handshake, which crypto/tls gives to nobody.
//
// Outside of the relay's process its hops are encrypted once more. So nothing
// of the endpoints could be found there but what they send beside the hop; that
// a leak inside would be found is shown for the relay's memory and its streams.
func TestCanaries(t *testing.T) {
	shipped := buildShipped(t)
	tells := buildEndpoint(t, telling, "tell.go")
	leaks := buildEndpoint(t, slices.Concat(telling, leaking), "tell.go", "leak.go")
	t.Run("the relay's process", func(t *testing.T) { testCanariesInProcess(t, shipped, tells) })
	t.Run("streams", func(t *testing.T) { testCanariesInStreams(t, tells) })
	t.Run("a leak is caught in memory", func(t *testing.T) { testLeakInMemory(t, shipped, leaks) })
	t.Run("a leak is caught in streams", func(t *testing.T) { testLeakInStreams(t, leaks) })
	t.Run("nothing that tells is shipped", func(t *testing.T) { testNotShipped(t, shipped, tells) })
}

// testCanariesInProcess runs the relay under load until its buffers are full,
// and looks at its memory, all that it received and sent, its log, pages and
// files. It finds the records that the relay holds, and no secret.
func testCanariesInProcess(t *testing.T, shipped, tells string) {
	r := startWatched(t, shipped)
	before := r.footprint(t)
	tap := startWireTap(t, r.address)
	s := startParty(t, tells, tap.address)
	s.open(t)
	tap.refuse.Store(true) // the second device has to do with TCP
	s.open(t)
	for _, d := range s.devices {
		for range frozenEach {
			s.freeze(t, d, http.MethodGet)
			s.freeze(t, d, http.MethodPost)
		}
	}
	capacity := 2 * 2 * frozenEach * jitterBuffer
	r.awaitFull(t, capacity)
	for carrier, least := range map[string]float64{"quic": 2, "tcp": 1} {
		if n, err := r.metric("blindrelay_carriers", `carrier="`+carrier+`"`); err != nil || n < least {
			t.Errorf("%v connections over %s, %v, want at least %v", n, carrier, err, least)
		}
	}
	pages := r.pages(t)
	after := r.footprint(t)
	memory := r.scanMemory(t, s, capacity)
	none(t, "the relay's memory", memory)

	tap.close()
	r.stop(t)
	sp := s.listen(t)
	sweep := sp.secrets.Sweep()
	for where, text := range map[string]string{"pages": pages, "stdout": r.stdout.String(), "log": r.stderr.String()} {
		if text == "" {
			t.Errorf("the relay's %s: nothing to look at", where)
		}
		io.WriteString(sweep, text)
		sweep.Gap()
	}
	none(t, "the relay's pages and log", sweep.Found())
	var readable canary.Scanner
	must(t, readable.AddRaw("ALPN", []byte(wire.ALPN)))
	control := readable.Sweep()
	sweep = sp.secrets.Sweep()
	for _, f := range files(t, tap.dir) {
		copyFile(t, io.MultiWriter(sweep, control), f)
		sweep.Gap()
		control.Gap()
	}
	t.Logf("%d spellings of secrets in %.0f MiB on the wire", sp.secrets.Patterns(), mib(sweep.Bytes()))
	none(t, "what the relay received and sent", sweep.Found())
	if len(control.Found()) != 1 {
		t.Errorf("%q was not found on the wire, which every TCP connection to the relay begins with", wire.ALPN)
	}
	if sweep.Bytes() < 2*int64(capacity) {
		t.Errorf("%d bytes were on the wire: the buffers alone took and hold %d", sweep.Bytes(), capacity)
	}
	before.same(t, after)
	before.same(t, r.footprint(t))
}

// testCanariesInStreams looks at what the relay sees when the encryption
// between it and the endpoints is taken away: all bytes of all streams.
func testCanariesInStreams(t *testing.T, tells string) {
	s, kept := tappedParty(t, tells)
	sp := s.listen(t)
	secrets, public := sp.secrets.Sweep(), sp.public.Sweep()
	kept.each(func(b []byte) {
		secrets.Write(b)
		secrets.Gap()
		public.Write(b)
		public.Gap()
	})
	t.Logf("%d spellings of secrets, %d of %d commits seen, in %.1f MiB of streams", sp.secrets.Patterns(),
		len(public.Found()), sp.public.Patterns(), mib(secrets.Bytes()))
	none(t, "the streams", secrets.Found())
	if least := 2 * 2 * len(s.devices); len(public.Found()) < least {
		t.Errorf("only %d of %d commits were found, which are in the streams for the relay to see; want at least %d", len(public.Found()), sp.public.Patterns(), least)
	}
}

// testLeakInMemory looks at the relay's memory while endpoints encrypt nothing.
// If nothing is found here, the other search shows nothing. There are no sealed
// records to be found.
func testLeakInMemory(t *testing.T, shipped, leaks string) {
	r := startWatched(t, shipped)
	s := startParty(t, leaks, r.address)
	d := s.open(t)
	for range frozenEach {
		s.freeze(t, d, http.MethodGet)
		s.freeze(t, d, http.MethodPost)
	}
	r.awaitFull(t, 2*frozenEach*jitterBuffer)
	caught(t, "memory", r.scanMemory(t, s, 0), "text/body of a request", "text/body of a response")
}

// testLeakInStreams looks at the streams of endpoints that encrypt nothing and
// put half of a session's secret where the relay sees it.
func testLeakInStreams(t *testing.T, leaks string) {
	s, kept := tappedParty(t, leaks)
	sweep := s.listen(t).secrets.Sweep()
	kept.each(func(b []byte) {
		sweep.Write(b)
		sweep.Gap()
	})
	leaked := []string{"exported/EXPORTER-blindrelay-e2e-v1"}
	for _, p := range places {
		if p != "name of a device" { // that is inside TLS, which does not leak
			leaked = append(leaked, "text/"+p)
		}
	}
	caught(t, "streams", sweep.Found(), leaked...)
}

func caught(t *testing.T, where string, found canary.Found, secrets ...string) {
	t.Helper()
	sums := found.Secrets()
	t.Logf("found in %s: %v", where, sums)
	for _, name := range secrets {
		if sums[name] == 0 {
			t.Errorf("%s leaks, and that was not found in %s", name, where)
		}
	}
}

// testNotShipped finds what tells secrets in the endpoints of this test, and
// nothing of it in the program that is shipped.
func testNotShipped(t *testing.T, shipped, tells string) {
	telling := func(program string) (names []string) {
		all, err := canary.Names(program)
		must(t, err)
		for _, n := range all {
			if strings.HasPrefix(n, module+"/crypto/e2e.tell") || strings.HasSuffix(n, "/crypto/e2e/canary_tell.go") {
				names = append(names, n)
			}
		}
		return names
	}
	if names := telling(filepath.Join(shipped, "blindlink")); len(names) > 0 {
		t.Errorf("blindlink holds %q", names)
	}
	if names := telling(tells); len(names) != 2 {
		t.Errorf("the endpoint of this test holds only %q", names)
	}
}

const module = "github.com/blindrelay/blindrelay"

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// buildShipped builds the programs as deploy/ does and returns their directory.
func buildShipped(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command(filepath.Join("..", "..", "deploy", "scripts", "build.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return dir
}

// tappedParty plays a party through a relay inside the test, and returns all
// bytes of its streams.
func tappedParty(t *testing.T, program string) (*party, *kept) {
	t.Helper()
	k := &kept{}
	r, err := localrelay.Start(localrelay.Config{
		BufferMemory: 1 << 30, JitterBuffer: jitterBuffer,
		Tap: func(ln blindrelay.Listener) blindrelay.Listener { return streamTap{ln, k} },
	})
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	s := startParty(t, program, r.At.String())
	for range 2 {
		d := s.open(t)
		s.freeze(t, d, http.MethodGet)
		s.freeze(t, d, http.MethodPost)
	}
	return s, k
}

// none fails the test for each secret that was found.
func none(t *testing.T, where string, found canary.Found) {
	t.Helper()
	for m, n := range found {
		t.Errorf("%s: %s was found %d times in %s", m.Secret, m.Spelling, n, where)
	}
}
