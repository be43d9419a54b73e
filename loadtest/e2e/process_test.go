//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	readyTimeout = 40 * time.Second // until a program says that it is ready
	stopTimeout  = 20 * time.Second // from SIGTERM to the end; a relay may spread goodbyes over 10 s
	shownLines   = 25               // of each output, when a test fails
)

// output collects what a program writes and wakes those who wait for more. It
// keeps the last keepOutput bytes.
type output struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed and replaced by every Write
}

const keepOutput = 4 << 20

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	if over := len(o.text) - keepOutput; over > 0 {
		o.text = append(o.text[:0], o.text[over:]...)
	}
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

// now returns the text so far and a channel that closes when there is more.
func (o *output) now() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text), o.changed
}

func (o *output) String() string {
	text, _ := o.now()
	return text
}

// last returns the last lines, indented.
func (o *output) last() string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	lines = lines[max(0, len(lines)-shownLines):]
	return "    " + strings.Join(lines, "\n    ")
}

// process is a program that runs beside the test.
type process struct {
	name           string
	cmd            *exec.Cmd
	stdout, stderr *output
	told           bool          // to end, by the test
	exited         chan struct{} // closed when the program has ended; code is set before
	code           int           // exit code, -1 after a signal
}

// command prepares a program under the name that failures show. Its
// environment is the test's without the settings of the programs under test,
// and with a home directory of its own.
func command(ctx context.Context, t *testing.T, prog string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, program(t, prog), args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "BLIND") && !strings.HasPrefix(kv, "HOME=") && !strings.HasPrefix(kv, "XDG_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir())
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// start runs a program until the test ends or stop is called. When the test
// fails, its last lines are printed.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	return startBy(t, cmd.Start, name, cmd)
}

// startBy is start for a command that has to be started in a way of its own.
func startBy(t *testing.T, begin func() error, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, stdout: newOutput(), stderr: newOutput(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	if err := begin(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // the exit code says it
		p.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		p.stop(t)
		if crashed(p.stderr.String()) {
			t.Errorf("%s crashed", name)
		}
		if t.Failed() {
			t.Logf("%s", p)
		}
	})
	return p
}

// String says what became of the process and shows its last lines.
func (p *process) String() string {
	state := "running"
	if p.ended() {
		state = fmt.Sprintf("ended with code %d", p.code)
		if !p.told {
			state += " by itself"
		}
	}
	return fmt.Sprintf("%s [%s, %s]\n  stdout:\n%s\n  stderr:\n%s",
		p.name, strings.Join(p.cmd.Args[1:], " "), state, p.stdout.last(), p.stderr.last())
}

func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// stop asks the process to end and waits for it; one that does not obey is
// killed and fails the test.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if p.ended() {
		return
	}
	p.told = true
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have just ended
	if !p.awaitExit(stopTimeout) {
		_ = p.cmd.Process.Kill()
		<-p.exited
		t.Errorf("%s did not end within %v of SIGTERM", p.name, stopTimeout)
	}
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.told = true
	_ = p.cmd.Process.Kill()
	<-p.exited
}

func (p *process) awaitExit(limit time.Duration) bool {
	select {
	case <-p.exited:
		return true
	case <-time.After(limit):
		return false
	}
}

// wantExit waits for the process to end by itself with a code.
func (p *process) wantExit(t *testing.T, limit time.Duration, code int) {
	t.Helper()
	if !p.awaitExit(limit) {
		t.Fatalf("%s still runs after %v, it had to end with code %d", p.name, limit, code)
	}
	if p.code != code {
		t.Fatalf("%s ended with code %d, want %d", p.name, p.code, code)
	}
}

// firstLine waits for the first whole line on stdout.
func (p *process) firstLine(t *testing.T) string {
	t.Helper()
	return p.await(t, p.stdout, "print a line on stdout", func(text string) (string, bool) {
		line, _, whole := strings.Cut(text, "\n")
		return line, whole
	})
}

// wantSaid waits until stderr holds all the words, in any case.
func (p *process) wantSaid(t *testing.T, words ...string) {
	t.Helper()
	p.await(t, p.stderr, fmt.Sprintf("say %q on stderr", words), func(text string) (string, bool) {
		return "", missing(text, words) == nil
	})
}

func (p *process) await(t *testing.T, o *output, what string, found func(string) (string, bool)) string {
	t.Helper()
	deadline := time.After(readyTimeout)
	exited := p.exited
	for {
		text, changed := o.now()
		if got, ok := found(text); ok {
			return got
		}
		if exited == nil {
			t.Fatalf("%s ended with code %d and did not %s", p.name, p.code, what)
		}
		select {
		case <-changed:
		case <-exited:
			exited = nil // look once more: its last words may have come with its end
		case <-deadline:
			t.Fatalf("%s did not %s within %v", p.name, what, readyTimeout)
		}
	}
}

// result is what a program that ended left behind.
type result struct {
	name, stdout, stderr string
	code                 int
	took                 time.Duration
}

// run runs a program to its end, which must come within the limit.
func run(t *testing.T, limit time.Duration, prog string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stdout, stderr := newOutput(), newOutput()
	cmd := command(ctx, t, prog, args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	begin := time.Now()
	err := cmd.Run()
	r := result{
		name:   prog + " " + strings.Join(args, " "),
		stdout: stdout.String(), stderr: stderr.String(),
		code: cmd.ProcessState.ExitCode(), took: time.Since(begin),
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", r, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("still running after %v: %v", limit, r)
	}
	return r
}

func (r result) String() string {
	return fmt.Sprintf("%s\n  ended with code %d after %v\n  stdout: %q\n  stderr:\n%s",
		r.name, r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// crashed reports whether a Go program printed the stack of a panic.
func crashed(stderr string) bool {
	return strings.Contains(stderr, "goroutine ") && strings.Contains(stderr, ".go:")
}

// want checks the exit code and that stderr holds all the words, in any case.
func (r result) want(t *testing.T, code int, words ...string) result {
	t.Helper()
	if r.code != code || crashed(r.stderr) {
		t.Fatalf("want exit code %d: %v", code, r)
	}
	if m := missing(r.stderr, words); m != nil {
		t.Fatalf("stderr does not say %q: %v", m, r)
	}
	return r
}

// missing returns those words that text does not hold, in any case.
func missing(text string, words []string) (not []string) {
	text = strings.ToLower(text)
	for _, w := range words {
		if !strings.Contains(text, strings.ToLower(w)) {
			not = append(not, w)
		}
	}
	return not
}

// eventually repeats an attempt until it succeeds and returns how long that
// took. The last error fails the test.
func eventually(t *testing.T, limit time.Duration, what string, attempt func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := attempt()
		took := time.Since(begin)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// notBefore is an error until the time has come.
func notBefore(at time.Time) error {
	if left := time.Until(at); left > 0 {
		return fmt.Errorf("%v too early", left)
	}
	return nil
}
