//go:build e2e

// Package e2e tests the programs as people run them: each in a process of its
// own, over real sockets, with a web server, players and a browser that nobody
// here wrote. It needs ffmpeg, nginx, curl, node, chromium, and playwright-core
// in NODE_PATH; whatever is missing fails the test that needs it. Tests in
// network namespaces need root on Linux, ip, tc and nft; without them they fail
// where CI is set in the environment, and are skipped elsewhere.
//
// TestCanaries looks for the endpoints' secrets in the relay's memory, on its
// hops, in its streams, log, pages and files, on Linux. Its file says where.
//
//	go test -tags e2e ./loadtest/e2e/...
//	go test -tags e2e -run 'TestDisturbed|TestRollingRestart' -v ./loadtest/e2e -download 2048
package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// binaries is the directory that TestMain builds the programs into, and is
// only read afterwards.
var binaries string

func TestMain(m *testing.M) {
	if plan := os.Getenv(crashEnv); plan != "" {
		fmt.Fprintln(os.Stderr, crashingHome(plan))
		os.Exit(1)
	}
	if plan := os.Getenv(attackerEnv); plan != "" {
		if err := attacking(plan); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "blindrelay-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator),
		"./cmd/blindrelay", "./cmd/blindlink", "./cmd/blindload", "./cmd/demo")
	build.Dir = filepath.Join("..", "..")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs under test:", err)
		return 1
	}
	binaries = dir
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// program returns the path of a program under test, or of one that the machine
// has to bring.
func program(t *testing.T, name string) string {
	t.Helper()
	switch name {
	case "blindrelay", "blindlink", "blindload", "demo":
		return filepath.Join(binaries, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed, and this test runs it: %v", name, err)
	}
	return path
}
