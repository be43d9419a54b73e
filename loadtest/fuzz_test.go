package loadtest

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzScenario: a scenario that is taken can be run as far as its own checks
// say, and is taken again.
func FuzzScenario(f *testing.F) {
	examples, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range examples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("duration: 10s\ngroups:\n- {kind: vod, viewers: 2, bitrate: 6M}\nlink: dsl\nslo: stall_ratio<1%\n"))
	path := filepath.Join(f.TempDir(), "scenario.yaml")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Load(path)
		if err != nil {
			return
		}
		if n := s.viewers(); n < 1 || n > maxViewers {
			t.Fatalf("%d viewers", n)
		}
		if err := s.check(); err != nil {
			t.Fatalf("what was taken is refused: %v", err)
		}
	})
}
