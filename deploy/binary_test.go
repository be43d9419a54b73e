package deploy

import (
	"debug/buildinfo"
	"debug/elf"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/loadtest/canary"
)

const module = "github.com/blindrelay/blindrelay"

// TestNoCodePath reads the relay as it is shipped. No function, source file or
// symbol of crypto/ is in it, nor that folder's name anywhere in its bytes.
// The same search finds all of these in blindlink.
func TestNoCodePath(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("scripts/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	for name, sealed := range map[string]bool{"blindrelay": false, "blindlink": true} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(dir, name)
			all, err := canary.Names(program)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, n := range all {
				if strings.Contains(n, module+"/crypto/") {
					found = append(found, n)
				}
			}
			whole := strings.Contains(read(t, program), module+"/crypto/")
			if !sealed && (len(found) > 0 || whole) {
				t.Errorf("of %d names of the relay, %d are of crypto/: %q...; its name is in its bytes: %t", len(all), len(found), found[:min(3, len(found))], whole)
			}
			if sealed && (len(found) < 100 || !whole || !slices.Contains(found, module+"/crypto/e2e.(*Conn).Read")) {
				t.Errorf("of %d names of blindlink, which seals, only %d are of crypto/", len(all), len(found))
			}
			t.Logf("%d of %d names are of %s/crypto/", len(found), len(all), module)
			testBuildInfo(t, program, name)
		})
	}
}

// testBuildInfo reads what `go version -m` shows: whose program it is, that
// every module is the one of go.sum, and that nothing of the machine got in.
func testBuildInfo(t *testing.T, program, name string) {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Path != module+"/cmd/"+name || info.Main.Path != module || info.Main.Replace != nil {
		t.Errorf("it is %s of %s", info.Path, info.Main.Path)
	}
	sums := read(t, "../go.sum")
	for _, m := range info.Deps {
		if m.Replace != nil || !strings.Contains(sums, m.Path+" "+m.Version+" "+m.Sum+"\n") {
			t.Errorf("module %s %s %s is not the one of go.sum", m.Path, m.Version, m.Sum)
		}
	}
	want := map[string]string{"CGO_ENABLED": "0", "-trimpath": "true", "GOOS": "linux"}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "vcs") || s.Key == "-tags" || s.Key == "-overlay" {
			t.Errorf("it was built with %s=%s", s.Key, s.Value)
		}
		if v, ok := want[s.Key]; ok && v == s.Value {
			delete(want, s.Key)
		}
	}
	if len(want) > 0 {
		t.Errorf("it was not built with %v: %v", want, info.Settings)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("it needs %q, %v, and has to be static", libraries, err)
	}
	home, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(read(t, program), home) {
		t.Errorf("it holds the name of the folder that it was built in, %s", home)
	}
}
