//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// change replaces a text that stands in a file of crypto/e2e exactly once.
type change struct{ file, old, new string }

// telling makes endpoints write their secrets to a file, with tell.go.
var telling = []change{
	{"keys.go", "func expand(", "func expandUntold("},
	{"profile.go", "func export(", "func exportUntold("},
	{"profile.go", "func baseTLS(", "func baseTLSUntold("},
	{"identity.go", "func NewIdentity(", "func newIdentityUntold("},
	{"record.go", "func (h *half) seal(", "func (h *half) sealUntold("},
}

// leaking makes them tell the relay, with leak.go.
var leaking = []change{
	{"record.go", "func (s *suite) epochKey(", "func (s *suite) epochKeyTight("},
	{"preface.go", "rand.Read(name.salt[:])", "copy(name.salt[:], session)"},
}

// buildEndpoint builds blindlink with changes and added files in crypto/e2e.
// The sources stay as they are: `go build -overlay` reads others in their
// place.
func buildEndpoint(t *testing.T, changes []change, added ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	e2e, err := filepath.Abs(filepath.Join("..", "..", "crypto", "e2e"))
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string) // by file of crypto/e2e
	for _, c := range changes {
		if texts[c.file] == "" {
			b, err := os.ReadFile(filepath.Join(e2e, c.file))
			if err != nil {
				t.Fatal(err)
			}
			texts[c.file] = string(b)
		}
		if n := strings.Count(texts[c.file], c.old); n != 1 {
			t.Fatalf("crypto/e2e/%s holds %q %d times: the canary test's changes have to follow the code", c.file, c.old, n)
		}
		texts[c.file] = strings.Replace(texts[c.file], c.old, c.new, 1)
	}
	replace := make(map[string]string)
	for name, text := range texts {
		changed := filepath.Join(dir, name)
		mustWrite(t, changed, text)
		replace[filepath.Join(e2e, name)] = changed
	}
	for _, name := range added {
		file, err := filepath.Abs(filepath.Join("testdata", "canary", name))
		if err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(e2e, "canary_"+name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir, "overlay.json"), string(overlay))
	program = filepath.Join(dir, "blindlink")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/blindlink")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build endpoints that tell their secrets: %v\n%s", err, out)
	}
	return program
}
