// Package deploy holds no code. Its tests keep the files of this directory in
// step with the relay; scripts/check.sh runs the tools that read the files.
package deploy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// relayProgram builds the relay and returns its path.
func relayProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blindrelay")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/blindrelay").CombinedOutput(); err != nil {
		t.Fatalf("build the relay: %v\n%s", err, out)
	}
	return path
}

// serveHelp returns what the relay says about its settings, on one line.
func serveHelp(t *testing.T, program string) string {
	t.Helper()
	out, err := exec.Command(program, "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSettings finds settings in these files that the relay does not have.
func TestSettings(t *testing.T) {
	help := serveHelp(t, relayProgram(t))
	variable := regexp.MustCompile(`\bBLINDRELAY_[A-Z_]+`)
	flag := regexp.MustCompile(`blindrelay serve[^\n]*`)
	word := regexp.MustCompile(`\s(--[a-z][a-z-]*)`)
	found := 0
	err := filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text := read(t, path)
		for _, name := range variable.FindAllString(text, -1) {
			found++
			if !strings.Contains(help, "($"+name+")") {
				t.Errorf("%s: the relay does not know %s", path, name)
			}
		}
		for _, line := range flag.FindAllString(text, -1) {
			for _, m := range word.FindAllStringSubmatch(line, -1) {
				found++
				if !strings.Contains(help, m[1]) {
					t.Errorf("%s: the relay does not know %s", path, m[1])
				}
			}
		}
		return nil
	})
	if err != nil || found < 10 {
		t.Errorf("%d settings found, %v", found, err)
	}
}

// TestEnvironmentExample starts the relay with each line of the example that
// needs no file, as if its owner had removed the comment sign.
func TestEnvironmentExample(t *testing.T) {
	program := relayProgram(t)
	lines := regexp.MustCompile(`(?m)^#(BLINDRELAY_[A-Z_]+=\S+)$`).FindAllStringSubmatch(read(t, "blindrelay.env.example"), -1)
	if len(lines) < 5 {
		t.Fatalf("the example holds %d settings", len(lines))
	}
	for _, line := range lines {
		setting := line[1]
		if strings.Contains(setting, "_TLS_") || strings.Contains(setting, "_CONFIG=") {
			continue
		}
		t.Run(setting, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var stderr strings.Builder
			cmd := exec.CommandContext(ctx, program, "serve", "--listen", "127.0.0.1:0", "--ops", "", "--state", filepath.Join(t.TempDir(), "state"))
			cmd.Env = append(os.Environ(), setting)
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
			_, _ = io.Copy(io.Discard, stdout)
			if waited := cmd.Wait(); err != nil || waited != nil || !strings.Contains(line, "#") {
				t.Errorf("printed %q, %v, %v\n%s", line, err, waited, &stderr)
			}
		})
	}
}

// TestPorts finds the relay's ports in every file that names them.
func TestPorts(t *testing.T) {
	help := serveHelp(t, relayProgram(t))
	for _, want := range []struct{ file, text, text2 string }{
		{"", "Default :4433 ", "Default 127.0.0.1:9464 "},
		{"Dockerfile", "\nEXPOSE 4433/udp 4433/tcp\n", "\nENTRYPOINT [\"/blindrelay\"]\nCMD [\"serve\"]\n"},
		{"Dockerfile.release", "\nEXPOSE 4433/udp 4433/tcp\n", "\nENTRYPOINT [\"/blindrelay\"]\nCMD [\"serve\"]\n"},
		{"compose.yaml", "\n      - \"4433:4433/udp\"\n      - \"4433:4433/tcp\"\n", "\n      BLINDRELAY_OPS: :9464\n"},
		{"compose.yaml", "\n  relay:\n", "\n      - ./prometheus/prometheus.yml:/etc/prometheus/prometheus.yml:ro\n"},
		{"prometheus/prometheus.yml", "targets: [relay:9464]", "job_name: blindrelay"},
	} {
		text := help
		if want.file != "" {
			text = read(t, want.file)
		}
		for _, part := range []string{want.text, want.text2} {
			if !strings.Contains(text, part) {
				t.Errorf("%s does not hold %q", want.file, part)
			}
		}
	}
}

// TestDockerfiles holds the image from source against the module, and the image
// around a binary against the image from source.
func TestDockerfiles(t *testing.T) {
	source, release := read(t, "Dockerfile"), read(t, "Dockerfile.release")
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../go.mod"))
	if version == nil || !strings.Contains(source, "\nARG GO_VERSION="+version[1]+"\n") {
		t.Errorf("the Dockerfile's GO_VERSION is not the %q of go.mod", version)
	}

	_, final, _ := strings.Cut(source, "\nFROM scratch\nCOPY --from=build --chown=65532:65532 /rootfs/ /\n")
	_, around, _ := strings.Cut(release, "\nFROM scratch\nCOPY --chown=65532:65532 rootfs/ /\n")
	if final == "" || final != around {
		t.Errorf("the two images differ:\n%s\n%s", final, around)
	}

	var copied []string
	for _, m := range regexp.MustCompile(`(?m)^COPY (\S+) (\S+)$`).FindAllStringSubmatch(source, -1) {
		if m[1] != m[2] {
			t.Errorf("%s is copied to %s", m[1], m[2])
		}
		copied = append(copied, m[1])
	}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}", "../cmd/blindrelay").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		dir := strings.TrimPrefix(pkg, "github.com/blindrelay/blindrelay/")
		if !slices.ContainsFunc(copied, func(c string) bool { return dir == c || strings.HasPrefix(dir, c+"/") }) {
			t.Errorf("the image's build lacks %s: it copies %q", dir, copied)
		}
	}
	flags := regexp.MustCompile(`CGO_ENABLED=0 go build( -\S+)* -o `)
	if own, shared := flags.FindString(source), flags.FindString(read(t, "scripts/build.sh")); own == "" || own != shared {
		t.Errorf("the Dockerfile runs %q and scripts/build.sh %q: the binaries would differ", own, shared)
	}
	if slices.ContainsFunc(copied, func(c string) bool { return c == "." || strings.HasPrefix(c, "crypto") }) {
		t.Errorf("the relay's build has no need of crypto/: %q", copied)
	}
}

// TestConfinement keeps what confines the relay in each way to run it.
func TestConfinement(t *testing.T) {
	for file, lines := range map[string][]string{
		"systemd/blindrelay.service": {
			"ExecStart=/usr/local/bin/blindrelay serve", "EnvironmentFile=-/etc/blindrelay/blindrelay.env",
			"DynamicUser=yes", "StateDirectory=blindrelay", "StateDirectoryMode=0700", "LimitCORE=0", "MemorySwapMax=0", "LimitNOFILE=65536",
			"CapabilityBoundingSet=", "AmbientCapabilities=", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes",
			"PrivateDevices=yes", "MemoryDenyWriteExecute=yes", "RestrictNamespaces=yes", "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
			"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
			"SystemCallFilter=landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp",
		},
		"Dockerfile":         {"USER 65532:65532", "FROM scratch"},
		"Dockerfile.release": {"USER 65532:65532", "FROM scratch"},
	} {
		have := strings.Split(read(t, file), "\n")
		for _, line := range lines {
			if !slices.Contains(have, line) {
				t.Errorf("%s lacks the line %q", file, line)
			}
		}
	}
	compose := read(t, "compose.yaml")
	services := 3
	for _, line := range []string{"read_only: true", "cap_drop: [ALL]", `security_opt: ["no-new-privileges:true"]`, "restart: unless-stopped"} {
		if n := strings.Count(compose, "\n    "+line+"\n"); n != services {
			t.Errorf("compose.yaml: %d of %d services have %q", n, services, line)
		}
	}
}

// TestStopTime lets the relay have the time that it takes to end.
func TestStopTime(t *testing.T) {
	find := func(what, text, pattern string) time.Duration {
		t.Helper()
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s does not hold %q", what, pattern)
		}
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	drain := find("the relay's help", serveHelp(t, relayProgram(t)), `--drain-timeout=DURATION .*?Default (\S+) `)
	for _, given := range []time.Duration{
		find("the unit", read(t, "systemd/blindrelay.service"), `(?m)^TimeoutStopSec=(\S+)$`),
		find("compose.yaml", read(t, "compose.yaml"), `(?m)^    stop_grace_period: (\S+)$`),
	} {
		if given < drain+5*time.Second || given > drain+15*time.Second {
			t.Errorf("the relay takes up to %v and 5 s, and is given %v", drain, given)
		}
	}
}

// TestSocketBuffers holds the sysctl file against what the relay asks for.
func TestSocketBuffers(t *testing.T) {
	text := read(t, "sysctl/99-blindrelay.conf")
	if line := "net.ipv4.tcp_allowed_congestion_control = reno cubic bbr\n"; !strings.Contains(text, line) {
		t.Errorf("the file lacks %q", line)
	}
	for _, name := range []string{"rmem_max", "wmem_max"} {
		if line := fmt.Sprintf("net.core.%s = %d\n", name, 7<<20); !strings.Contains(text, line) {
			t.Errorf("the file lacks %q", line)
		}
	}
}
