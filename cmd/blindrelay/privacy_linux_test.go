package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/blindrelay/blindrelay/transport/hop"
	"github.com/blindrelay/blindrelay/transport/transporttest"
	"github.com/blindrelay/blindrelay/transport/wire"
)

// logLevels are the methods of a slog.Logger that write a line or shape one.
var logLevels = map[string]string{
	"Debug": "debug", "Info": "info", "Warn": "warn", "Error": "error",
	"DebugContext": "?", "InfoContext": "?", "WarnContext": "?", "ErrorContext": "?", "Log": "?", "LogAttrs": "?", "With": "?", "WithGroup": "?",
}

// TestEvents compares the list of all lines of the log with what the sources of
// the relay can write.
func TestEvents(t *testing.T) {
	var listed, found []string
	privacy, err := os.ReadFile("../../relay/PRIVACY.md")
	if err != nil {
		t.Fatal(err)
	}
	field := regexp.MustCompile("`([a-z_]+)`")
	for _, row := range regexp.MustCompile(`(?m)^\| (debug|info|warn|error) \| (.+?) \| (.+?) \| .+ \|$`).FindAllStringSubmatch(string(privacy), -1) {
		event := row[1] + " " + row[2]
		for _, m := range field.FindAllStringSubmatch(row[3], -1) {
			event += " " + m[1]
		}
		listed = append(listed, event)
	}
	for _, root := range []string{"../../relay", "../../transport", "."} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			// transporttest is for tests, netsim for load tests.
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
				strings.Contains(path, "/transporttest/") || strings.Contains(path, "/netsim/") {
				return err
			}
			found = append(found, eventsOf(t, path)...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(listed)
	slices.Sort(found)
	for _, event := range found {
		if !slices.Contains(listed, event) {
			t.Errorf("relay/PRIVACY.md does not list: %s", event)
		}
	}
	for _, event := range listed {
		if !slices.Contains(found, event) {
			t.Errorf("relay/PRIVACY.md lists what nothing writes: %s", event)
		}
	}
	if len(listed) < 10 {
		t.Errorf("relay/PRIVACY.md lists %d lines", len(listed))
	}
}

// eventsOf returns the log's lines in a file: level, message, names of fields.
// It reports calls from which these cannot be read, and other ways to stderr.
func eventsOf(t *testing.T, path string) (events []string) {
	files := gotoken.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Where something is written to stderr that is no line of the log.
	ways := map[string]int{"main.go": 4, "serve.go": 1, "ticket.go": 1} // mistakes and how they end the program; the logger; an issuer's key
	if filepath.Dir(path) != "." {
		ways = nil
	}
	stderr := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Stderr" {
			stderr++
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok && (name.Name == "print" || name.Name == "println") {
			t.Errorf("%s: it writes past the log", files.Position(call.Pos()))
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		level := ""
		if ok {
			level = logLevels[sel.Sel.Name]
		}
		if level == "" || len(call.Args) == 0 { // without arguments it is error's Error
			return true
		}
		if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "http" || pkg.Name == "math") { // http.Error, math.Log
			return true
		}
		text := func(i int) string {
			if lit, ok := call.Args[i].(*ast.BasicLit); ok && lit.Kind == gotoken.STRING {
				s, _ := strconv.Unquote(lit.Value)
				return s
			}
			t.Errorf("%s: the log's message and the names of its fields have to be literals", files.Position(call.Pos()))
			return "?"
		}
		event := level + " " + text(0)
		for i := 1; i < len(call.Args); i += 2 {
			event += " " + text(i)
		}
		events = append(events, event)
		return true
	})
	if stderr != ways[path] {
		t.Errorf("%s: it names os.Stderr %d times, %d are known", path, stderr, ways[path])
	}
	return events
}

// TestLogNames has agents refused and devices come and go, at a relay that logs
// everything it can.
func TestLogNames(t *testing.T) {
	for name, tc := range map[string]struct {
		args            []string
		routes, network bool
	}{
		"default": {},
		"routes":  {args: []string{"--log-routes"}, routes: true},
		"network": {args: []string{"--log-addresses", "network"}, network: true},
	} {
		t.Run(name, func(t *testing.T) {
			cert, stranger := transporttest.Certificate(t), transporttest.Certificate(t)
			route := wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
			p := serve(t, "serve", append([]string{"--log-level", "debug", "--drain-timeout", "0", "--allow", route.String()}, tc.args...)...)
			wantRefused(t, p.relay(t), stranger)
			a, _ := register(t, newDialer(t), p.relay(t), cert)
			attach(t, newDialer(t), p.relay(t), route)
			a.Close(wire.CodeNone, "")
			p.stop(t, syscall.SIGTERM)

			var said []string // but for what the relay says about itself
			for line := range strings.Lines(p.stderr.String()) {
				if !strings.Contains(line, `"msg":"listening"`) {
					said = append(said, line)
				}
			}
			all := strings.Join(said, "")
			if !strings.Contains(all, "agent not admitted") || strings.Count(all, "session ended") < 2 {
				t.Fatalf("the log lacks what happened:\n%s", all)
			}
			strange := wire.RouteOf(stranger.Leaf.RawSubjectPublicKeyInfo).String()
			if strings.Contains(all, strange) != tc.routes || strings.Contains(all, `"route":"~`) == tc.routes {
				t.Errorf("routes named: %t expected\n%s", tc.routes, all)
			}
			if strings.Contains(all, "127.0.0.1") || strings.Contains(all, `"from":"127.0.0.0/24"`) != tc.network || strings.Contains(all, `"from":"-"`) == tc.network {
				t.Errorf("networks named: %t expected\n%s", tc.network, all)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	for _, tc := range []struct{ addr, want string }{
		{"192.0.2.77:4433", "192.0.2.0/24"},
		{"[::ffff:192.0.2.77]:1", "192.0.2.0/24"},
		{"[2001:db8:1:2:3:4:5:6]:9", "2001:db8:1::/48"},
		{"[fe80::1%eth0]:9", "fe80::/48"},
	} {
		udp, err := net.ResolveUDPAddr("udp", tc.addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range []net.Addr{udp, net.TCPAddrFromAddrPort(udp.AddrPort())} {
			if got := network(addr); got != tc.want {
				t.Errorf("%v: %s, want %s", addr, got, tc.want)
			}
		}
	}
}

// TestRouteNames holds a route's names of two processes against each other.
func TestRouteNames(t *testing.T) {
	first, second := (&serveCmd{}).nameRoute(), (&serveCmd{}).nameRoute()
	a, b := wire.Route{1}, wire.Route{2}
	if first(a) != first(wire.Route{1}) || first(a) == first(b) {
		t.Error("the name does not stand for the route")
	}
	if first(a) == second(a) {
		t.Error("the name outlives the process")
	}
}

// TestSeries has all kinds of endpoints come, be refused and go: no series of
// the metrics is there that was not at the start.
func TestSeries(t *testing.T) {
	ops := freePort(t)
	cert := transporttest.Certificate(t)
	route := wire.RouteOf(cert.Leaf.RawSubjectPublicKeyInfo)
	p := serve(t, "serve", "--allow", route.String(), "--ops", ops)
	series := func() (names []string, text string) {
		_, text = fetch(t, "http://"+ops+"/metrics")
		for line := range strings.Lines(text) {
			if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names, text
	}
	before, _ := series()
	if len(before) < 100 {
		t.Fatalf("%d series", len(before))
	}
	wantRefused(t, p.relay(t), transporttest.Certificate(t))
	a, _ := register(t, newDialer(t), p.relay(t), cert)
	for range 2 {
		device := attach(t, newDialer(t), p.relay(t), route)
		st, err := device.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in, err := a.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hop.ReadIncoming(in); err != nil {
			t.Fatal(err)
		}
		in.Reset(wire.Code(0x7777)) // one that nobody knows
		st.Read(make([]byte, 1))    // until that has come through
		device.Close(wire.Code(0x7778), "")
	}
	after, text := series()
	if !slices.Equal(before, after) {
		t.Errorf("before %d series, after %d: %q", len(before), len(after), slices.DeleteFunc(after, func(s string) bool { return slices.Contains(before, s) }))
	}
	if !strings.Contains(text, "\nblindrelay_streams_opened_total 2\n") {
		t.Errorf("nothing has happened:\n%s", text)
	}
}
