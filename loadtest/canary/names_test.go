package canary

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestNames reads the names of a program with its symbols and without.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	const own = "github.com/blindrelay/blindrelay/transport/wire.ParseRelay"
	for name, flags := range map[string]string{"whole": "", "stripped": "-s -w"} {
		program := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-ldflags", flags, "-o", program, "../../cmd/blindlink")
		cmd.Env = append(cmd.Environ(), "GOOS=linux", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		names, err := Names(program)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(names, own) || !slices.Contains(names, "main.main") || len(names) < 1000 {
			t.Errorf("%s: %d names, without %s or main.main", name, len(names), own)
		}
	}
	if _, err := Names("names.go"); err == nil {
		t.Error("a file of text has names")
	}
}
