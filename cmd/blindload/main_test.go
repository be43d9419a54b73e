package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/result"
	"go.uber.org/goleak"
)

// asProgram makes the test binary the program.
const asProgram = "BLINDLOAD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// blindload runs the program and returns its output and exit code.
func blindload(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestUsage(t *testing.T) {
	for _, test := range []struct{ args, hint string }{
		{"", "expected one of"},
		{"run", "--relay and --self"},
		{"run --self --relay 127.0.0.1:1", "--relay and --self"},
		{"run --self --url http://127.0.0.1:1", "one of --relay, --self, --invite and --url"},
		{"run --url 127.0.0.1", "not an http:// address"},
		{"run --relay nowhere", "HOST:PORT"},
		{"run --self --path /x", "--path goes with --url"},
		{"run --self --ticket-key main_test.go", "--ticket-key goes with --relay"},
		{"idle --self --ticket-key main_test.go", "--ticket-key goes with --relay"},
		{"run --invite BR1:AAAA --path /x", "invite"},
		{"run --self --kind opera", "opera"},
		{"run --self --bitrate fast", "not a bitrate"},
		{"run --self --slo quick", "quick"},
		{"run --self --buffer-memory much", "not a size"},
		{"capacity --self --slo quick", "quick"},
		{"compare", "expected"},
		{"compare none.json none.json", "none.json"},
	} {
		_, stderr, code := blindload(t, strings.Fields(test.args)...)
		if code != exitUsage || !strings.Contains(stderr, test.hint) {
			t.Errorf("%q ended with %d, want %d and %q:\n%s", test.args, code, exitUsage, test.hint, stderr)
		}
	}
	if out, _, code := blindload(t, "run", "--help"); code != 0 || !strings.Contains(out, "BLINDLOAD_VIEWERS") {
		t.Errorf("--help ended with %d:\n%s", code, out)
	}
}

// TestSelf runs agents at a relay in a process of its own.
func TestSelf(t *testing.T) {
	out, stderr, code := blindload(t, "storm", "--self", "--agents", "10", "--settle", "10ms", "--buffer-memory", "64M")
	if code != 0 || !strings.Contains(out, "10 came at once") || !strings.Contains(out, "0 could not") {
		t.Errorf("it ended with %d:\n%s%s", code, out, stderr)
	}
}

func TestVerdict(t *testing.T) {
	all := result.Viewers{Arrived: 3, Started: 3}
	held := []result.Verdict{{Objective: "stalls<1", Held: true}}
	not := []result.Verdict{{Objective: "stalls<1"}}
	for name, test := range map[string]struct {
		res  result.Result
		code int
	}{
		"everybody watched":      {result.Result{Viewers: all}, exitHeld},
		"somebody saw nothing":   {result.Result{Viewers: result.Viewers{Arrived: 3, Started: 2}}, exitNotHeld},
		"objective held":         {result.Result{Viewers: all, SLO: held}, exitHeld},
		"objective not held":     {result.Result{Viewers: all, SLO: not}, exitNotHeld},
		"wrong bytes":            {result.Result{Viewers: result.Viewers{Arrived: 3, Started: 3, Corrupt: 1}, SLO: held}, exitNotHeld},
		"generator was too slow": {result.Result{Viewers: all, SLO: held, Bottleneck: "late"}, exitBottleneck},
	} {
		if code := exitCode(verdict(&test.res)); code != test.code {
			t.Errorf("%s: exit code %d, want %d", name, code, test.code)
		}
	}
	if code := exitCode(fmt.Errorf("flags: %w", usageError{errors.New("x")})); code != exitUsage {
		t.Errorf("a usage error ends with %d", code)
	}
}

// TestCompareAndMerge writes a result and reads it back through the commands.
func TestCompareAndMerge(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.json")
	rec := result.NewRecorder()
	rec.Add(func(v *result.Viewers) { v.Arrived, v.Started, v.Bytes, v.Watched = 2, 2, 1_000_000, time.Minute })
	res := rec.Result()
	res.Schema, res.Title, res.Started, res.Took = result.Schema, "made", time.Unix(1_800_000_000, 0).UTC(), time.Minute
	if err := res.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	if out, stderr, code := blindload(t, "compare", file, file); code != 0 || !strings.Contains(out, "goodput") {
		t.Errorf("compare ended with %d:\n%s%s", code, out, stderr)
	}
	page := filepath.Join(dir, "page.html")
	if out, stderr, code := blindload(t, "merge", file, file, "--report", page); code != 0 || !strings.Contains(out, "viewers arrived") {
		t.Errorf("merge ended with %d:\n%s%s", code, out, stderr)
	}
	if b, err := os.ReadFile(page); err != nil || !bytes.Contains(b, []byte("made")) {
		t.Errorf("the merged page: %v", err)
	}
}
