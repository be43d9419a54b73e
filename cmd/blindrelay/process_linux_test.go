package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/transport"
	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/wire"
	"go.uber.org/goleak"
)

// modeVariable makes the test binary run as another program: the relay itself,
// or what the relay is measured against.
const modeVariable = "BLINDRELAY_TEST_MODE"

func TestMain(m *testing.M) {
	mode := os.Getenv(modeVariable)
	os.Unsetenv(modeVariable)
	switch mode {
	case "":
		goleak.VerifyTestMain(m)
	case "serve":
		main()
	case "measured":
		go reportMemory()
		main()
	case "taken":
		taken()
	case "lacking":
		lacking()
	case "bare":
		go reportMemory()
		bare()
	}
}

// process is a program that runs beside the test.
type process struct {
	cmd            *exec.Cmd
	stdout         *bufio.Reader
	stderr         strings.Builder
	ask            io.WriteCloser // what reportMemory reads
	answers        *bufio.Reader  // what reportMemory writes
	state, address string
}

// command prepares this test binary to run in a mode, which may be followed by
// settings of the environment. It inherits none of the relay's.
func command(t testing.TB, mode string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BLINDRELAY_") && !strings.HasPrefix(kv, "XDG_") && !strings.HasPrefix(kv, "STATE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	mode, setting, _ := strings.Cut(mode, " ")
	cmd.Env = append(cmd.Env, setting, modeVariable+"="+mode, "HOME="+t.TempDir())
	return cmd
}

// start runs a program until the test ends and reads its first line.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.ask, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = &p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p.stdout, p.answers = bufio.NewReader(out), bufio.NewReader(r)
	t.Cleanup(func() {
		cmd.Process.Kill() // an error means that it has ended
		cmd.Wait()
		r.Close()
	})
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatalf("the program printed no line: %v\n%s", err, &p.stderr)
	}
	p.address = strings.TrimSpace(line)
	return p
}

// serve runs the relay with a new state on a free port.
func serve(t testing.TB, mode string, args ...string) *process {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	p := start(t, command(t, mode, append([]string{"serve", "--listen", "127.0.0.1:0", "--ops", "", "--state", state}, args...)...))
	p.state = state
	return p
}

// stop sends a signal and returns the exit code.
func (p *process) stop(t testing.TB, sig os.Signal) int {
	t.Helper()
	p.cmd.Process.Signal(sig)
	timer := time.AfterFunc(20*time.Second, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	io.Copy(io.Discard, p.stdout)
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) relay(t testing.TB) wire.Relay {
	t.Helper()
	r, err := wire.ParseRelay(p.address)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// usage is what a process takes. Sizes are in bytes.
type usage struct {
	CPU    float64          // seconds so far
	Heap   int64            // objects, after a collection if one was asked for
	Free   int64            // of heap and stacks: free in the allocator and not given back
	Stacks int64            // of goroutines
	Other  int64            // of the runtime's own
	Areas  map[string]int64 // of the heap, by who allocated; sampled
}

// usage asks the process what it takes now, after a collection if gc.
func (p *process) usage(t testing.TB, gc bool) usage {
	t.Helper()
	fmt.Fprintln(p.ask, gc)
	var u usage
	line, err := p.answers.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &u)
	}
	if err != nil {
		t.Fatalf("ask the process for its memory: %v\n%s", err, &p.stderr)
	}
	return u
}

// reportMemory answers usage in the process.
func reportMemory() {
	asked, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.NewFile(3, "answers"))
	for asked.Scan() {
		if asked.Text() == "true" {
			runtime.GC()
			runtime.GC() // the profile is that of the collection before
		}
		answers.Encode(measure())
	}
}

func measure() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u := usage{
		Heap:   int64(m.HeapAlloc),
		Free:   int64(m.HeapSys - m.HeapReleased - m.HeapAlloc + m.StackSys - m.StackInuse),
		Stacks: int64(m.StackInuse),
		Other:  int64(m.GCSys + m.OtherSys + m.MSpanSys + m.MCacheSys + m.BuckHashSys),
		Areas:  areas(),
	}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.CPU = (time.Duration(r.Utime.Nano()) + time.Duration(r.Stime.Nano())).Seconds()
	}
	return u
}

// resident returns the bytes of memory that the process has now. Reading that
// from outside costs the process nothing.
func (p *process) resident(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("/proc says nothing about resident memory")
	return 0
}

// areas sums the sampled heap by the innermost caller that says who it is.
func areas() map[string]int64 {
	records := make([]runtime.MemProfileRecord, 4096)
	n, ok := runtime.MemProfile(records, false)
	for !ok {
		records = make([]runtime.MemProfileRecord, n+512)
		n, ok = runtime.MemProfile(records, false)
	}
	sums := make(map[string]int64)
	for _, r := range records[:n] {
		area := "other"
		frames := runtime.CallersFrames(r.Stack())
		for more := true; more && area == "other"; {
			var f runtime.Frame
			f, more = frames.Next()
			area = areaOf(f.Function)
		}
		// A sampled object stands for as many as the rate makes likely.
		objects, bytes := r.InUseObjects(), r.InUseBytes()
		if objects > 0 {
			size := float64(bytes) / float64(objects)
			bytes = int64(float64(bytes) / -math.Expm1(-size/float64(runtime.MemProfileRate)))
		}
		sums[area] += bytes
	}
	return sums
}

func areaOf(function string) string {
	for prefix, area := range map[string]string{
		"github.com/quic-go/quic-go": "quic-go", "crypto/": "TLS", "vendor/golang.org/x/crypto": "TLS",
		"github.com/blindrelay/blindrelay/": "ours", "main.": "ours", "github.com/prometheus": "metrics",
	} {
		if strings.HasPrefix(function, prefix) {
			return area
		}
	}
	return "other"
}

// newDialer dials from a socket of its own.
func newDialer(t testing.TB) *transport.Dialer {
	t.Helper()
	d, err := transport.NewDialer(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

var token = wire.Token{1}

// register makes a new agent.
func register(t testing.TB, d *transport.Dialer, r wire.Relay, cert tls.Certificate) (*hop.Registration, wire.Route) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := d.DialQUIC(ctx, r, &cert)
	if err != nil {
		t.Fatal(err)
	}
	a, err := hop.Register(ctx, s, wire.Register{Tokens: []wire.TokenHash{token.Hash()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(wire.CodeNone, "") })
	return a, wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
}

// attach makes a new device.
func attach(t testing.TB, d *transport.Dialer, r wire.Relay, route wire.Route) *hop.Attachment {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := d.DialQUIC(ctx, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := hop.Attach(ctx, s, wire.Open{Route: route, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(wire.CodeNone, "") })
	return a
}

// fetch reads a page of the operator's server.
func fetch(t testing.TB, url string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
