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

// list runs go list for a system and returns its lines, sorted.
func list(t *testing.T, system string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0")
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

// under reports whether a package is in a folder of the module.
func under(pkg, folder string) bool {
	return pkg == module+"/"+folder || strings.HasPrefix(pkg, module+"/"+folder+"/")
}

// verifying is what tickets are verified with: signatures and their keys, which
// open nothing.
var verifying = []string{"crypto", "crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "crypto/x509"}

// TestWalls keeps apart what must not know each other, on every system: the
// folders by all that they import, relay/ also by what it imports itself.
func TestWalls(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Run(system, func(t *testing.T) { testWalls(t, system) })
	}
}

func testWalls(t *testing.T, system string) {
	// blindlink holds crypto/: what finds nothing there shows nothing elsewhere.
	if !slices.ContainsFunc(list(t, system, "-deps", module+"/cmd/blindlink"), func(dep string) bool { return under(dep, "crypto") }) {
		t.Error("go list finds no package of crypto/ in blindlink")
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
		for _, dep := range list(t, system, "-deps", module+"/"+wall.from+"/...") {
			if under(dep, wall.to) {
				t.Errorf("%s/ imports %s, directly or not: %s", wall.from, dep, wall.why)
			}
		}
	}
	for _, line := range list(t, system, "-f", `{{range .Imports}}{{$.ImportPath}}>{{.}} {{end}}`, module+"/relay/...") {
		from, to, _ := strings.Cut(line, ">")
		if from == module+"/relay/admit" && slices.Contains(verifying, to) {
			continue
		}
		if strings.HasPrefix(to+"/", "crypto/") || strings.HasPrefix(to, "golang.org/x/crypto") {
			t.Errorf("%s imports %s: relay/ has no use for cryptography, transport/ encrypts the hop", from, to)
		}
	}
	for _, dep := range list(t, system, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/transport/wire") {
		if dep != module+"/transport/wire" {
			t.Errorf("transport/wire imports %s: it is the standard library's alone", dep)
		}
	}
	both := []string{"loadtest", "cmd/blindload", "cmd/demo"}
	for _, line := range list(t, system, "-f", `{{.ImportPath}}>{{join .Deps ","}}`, module+"/...") {
		pkg, deps, _ := strings.Cut(line, ">")
		holds := func(folder string) bool {
			return slices.ContainsFunc(strings.Split(deps, ","), func(dep string) bool { return under(dep, folder) })
		}
		if holds("crypto") && holds("relay") && !slices.ContainsFunc(both, func(f string) bool { return under(pkg, f) }) {
			t.Errorf("%s holds both sides, crypto/ and relay/", pkg)
		}
	}
}

// TestDependencies compares what the relay's binary is made of with the list
// that was agreed on.
func TestDependencies(t *testing.T) {
	got := strings.Join(list(t, "linux", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/cmd/blindrelay"), "\n") + "\n"
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
