package main

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write deps.txt anew")

const module = "github.com/blindrelay/blindrelay"

// list runs go list and returns its lines, sorted.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	lines := strings.Fields(string(out))
	slices.Sort(lines)
	return lines
}

// TestWalls keeps apart what must not know each other: the folders by all that
// they import, relay/ also by what it imports itself.
func TestWalls(t *testing.T) {
	under := func(pkg, folder string) bool {
		return pkg == module+"/"+folder || strings.HasPrefix(pkg, module+"/"+folder+"/")
	}
	for _, wall := range []struct {
		from, to, why string
	}{
		{"relay", "crypto", "a relay holds no key"},
		{"cmd/blindrelay", "crypto", "a relay holds no key"},
		{"crypto", "relay", "an endpoint trusts no relay"},
		{"transport", "relay", "the wire knows neither side"},
		{"transport", "crypto", "the wire knows neither side"},
	} {
		for _, dep := range list(t, "-deps", module+"/"+wall.from+"/...") {
			if under(dep, wall.to) {
				t.Errorf("%s/ imports %s, directly or not: %s", wall.from, dep, wall.why)
			}
		}
	}
	opens := []string{"crypto/cipher", "crypto/aes", "crypto/ecdh", "crypto/mlkem", "crypto/hpke", "crypto/chacha20poly1305", "golang.org/x/crypto"}
	for _, line := range list(t, "-f", `{{range .Imports}}{{$.ImportPath}}>{{.}} {{end}}`, module+"/relay/...") {
		from, to, _ := strings.Cut(line, ">")
		if slices.ContainsFunc(opens, func(p string) bool { return to == p || strings.HasPrefix(to, p+"/") }) {
			t.Errorf("%s imports %s, which can open a payload", from, to)
		}
	}
	for _, dep := range list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/transport/wire") {
		if dep != module+"/transport/wire" {
			t.Errorf("transport/wire imports %s: it is the standard library's alone", dep)
		}
	}
}

// TestDependencies compares what the relay's binary is made of with the list
// that was agreed on.
func TestDependencies(t *testing.T) {
	got := strings.Join(list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/cmd/blindrelay"), "\n") + "\n"
	if *update {
		if err := os.WriteFile("deps.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	had := strings.Fields(string(want))
	for _, dep := range strings.Fields(got) {
		if !slices.Contains(had, dep) {
			t.Errorf("the relay now contains %s", dep)
		}
	}
	if got != string(want) {
		t.Error("deps.txt is not the list of what the relay contains: if that is meant, run `go test ./cmd/blindrelay -run Dependencies -update`")
	}
}
