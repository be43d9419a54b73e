package loadtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDesignNamesTests: every test that crypto/DESIGN.md names is there, in the
// package that stands before it in the same row.
func TestDesignNamesTests(t *testing.T) {
	b, err := os.ReadFile("../crypto/DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile("`[a-z0-9/]+`|\\b(Test|Fuzz)[A-Z][A-Za-z]*")
	named := 0
	for line := range strings.Lines(string(b)) {
		tests := testsIn(t, "crypto/e2e") // what sections 1 to 12 mean
		for _, w := range word.FindAllString(line, -1) {
			if dir := strings.Trim(w, "`"); dir != w {
				if _, err := os.Stat(filepath.Join("..", dir)); err == nil {
					tests = testsIn(t, dir)
				}
				continue
			}
			named++
			if !strings.Contains(tests, "\nfunc "+w+"(") {
				t.Errorf("there is no %s in the package of this line:\n%s", w, line)
			}
		}
	}
	if named < 80 {
		t.Errorf("the design names %d tests, it was more", named)
	}
}

// testsIn returns the text of a package's tests.
func testsIn(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	return text.String()
}
