package mutants

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var which = flag.String("mutants", "", "take out each check whose name this pattern matches and run the tests: all take a quarter of an hour")

const root = "../.."

// TestWeakeningsMatch demands that every weakening still finds its place.
func TestWeakeningsMatch(t *testing.T) {
	for _, w := range weakenings {
		if _, err := weaken(root, w); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
	}
}

// TestMutants takes out one check after the other. Tests of each must pass
// before and fail afterwards.
func TestMutants(t *testing.T) {
	if *which == "" {
		t.Skip("takes a quarter of an hour; run it with -mutants .")
	}
	pattern, err := regexp.Compile(*which)
	if err != nil {
		t.Fatal(err)
	}
	var chosen []weakening
	for _, w := range weakenings {
		if pattern.MatchString(w.name) {
			chosen = append(chosen, w)
		}
	}
	dir := t.TempDir()
	if err := copyTree(dir, root); err != nil {
		t.Fatal(err)
	}
	for _, packages := range untouched(chosen) {
		if out, err := test(t.Context(), dir, packages, "Test"); err != nil {
			t.Fatalf("the tests of %s fail on the source as it is:\n%s", packages, tail(out))
		}
	}
	var list strings.Builder
	caught := 0
	for _, w := range chosen {
		by, err := w.caughtBy(t.Context(), dir)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", w.name, err)
		case len(by) == 0:
			t.Errorf("no test notices: %s", w.name)
			by = []string{"NOTHING"}
		default:
			caught++
		}
		line := fmt.Sprintf("%-60s caught by %s\n", w.name, strings.Join(by, ", "))
		list.WriteString(line)
		fmt.Print(line) // it takes long: show how far it is
	}
	t.Logf("%d weakenings, %d caught\n%s", len(chosen), caught, &list)
}

// untouched returns the packages whose tests must pass without a weakening.
func untouched(chosen []weakening) (packages []string) {
	for _, w := range chosen {
		for i := 0; i < len(w.tests); i += 2 {
			if !slices.Contains(packages, w.tests[i]) {
				packages = append(packages, w.tests[i])
			}
		}
	}
	return packages
}

// weaken returns the files of a tree that a weakening changes, as they are
// after it.
func weaken(dir string, w weakening) (map[string]string, error) {
	files := make(map[string]string)
	for _, e := range w.edits {
		text, ok := files[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(dir, e.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s has this %d times instead of once: %s", e.file, n, e.old)
		}
		files[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return files, nil
}

// caughtBy weakens the tree, runs the tests, and undoes it. It returns the
// tests that failed, of the first package in which one did.
func (w weakening) caughtBy(ctx context.Context, dir string) ([]string, error) {
	files, err := weaken(dir, w)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		before, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		defer os.WriteFile(path, before, 0o600)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	var by []string
	for i := 0; i < len(w.tests); i += 2 {
		out, err := test(ctx, dir, w.tests[i], w.tests[i+1])
		if err == nil {
			continue
		}
		names := failed(out)
		if strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]") || len(names) == 0 {
			return nil, fmt.Errorf("the tests did not run:\n%s", tail(out))
		}
		for _, n := range names {
			by = append(by, strings.TrimPrefix(w.tests[i], "./")+"."+n)
		}
	}
	return by, nil
}

// testTime bounds one run: a weakened endpoint may wait for what never comes.
const testTime = 2 * time.Minute

func test(ctx context.Context, dir, pkg, pattern string) (out string, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-failfast", "-timeout", testTime.String(), "-run", pattern, pkg)
	cmd.Dir = dir
	b, err := cmd.CombinedOutput()
	return string(b), err
}

var (
	failLine = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	hungLine = regexp.MustCompile(`(?m)^\t(Test\w+|Fuzz\w+)\S* \(`)
	inPanic  = regexp.MustCompile(`\.(Test\w+|Fuzz\w+)[.(]`)
)

// failed finds the tests that failed, hung or panicked in the output of go test.
func failed(out string) (names []string) {
	for _, re := range []*regexp.Regexp{failLine, hungLine, inPanic} {
		for _, m := range re.FindAllStringSubmatch(out, -1) {
			if !slices.Contains(names, m[1]) {
				names = append(names, m[1])
			}
		}
		if len(names) > 0 {
			break
		}
	}
	return names
}

func tail(out string) string { return out[max(0, len(out)-2000):] }

// copyTree copies the module, without what git and tools keep beside it.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case rel != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}
