package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// metricNames starts the relay and returns the names of the metrics that it has
// from the start.
func metricNames(t *testing.T) (names []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ops := ln.Addr().String()
	ln.Close()
	program := relayProgram(t) // which may build it
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "serve", "--listen", "127.0.0.1:0", "--ops", ops, "--state", filepath.Join(t.TempDir(), "state"))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)`).FindAllStringSubmatch(string(text), -1) {
		if m[2] == "histogram" && strings.HasPrefix(m[1], "blindrelay_") {
			m[1] += "_bucket" // the series that has all that it says
		}
		names = append(names, m[1])
	}
	return append(names, "up") // Prometheus's own
}

// TestPictures holds the dashboard and the alerts against the metrics that the
// relay has, and every metric of the relay against the dashboard.
func TestPictures(t *testing.T) {
	names := metricNames(t)
	metric := regexp.MustCompile(`\b(blindrelay_[a-z_]+|process_[a-z_]+|go_[a-z_]+|up)\b`)
	var dashboard struct {
		UID    string
		Panels []struct {
			Title      string
			Datasource struct{ Type, UID string }
			GridPos    struct{ X, Y, W, H int }
			Targets    []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/dashboards/blindrelay.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	datasource := read(t, "grafana/provisioning/datasources/prometheus.yml")
	shown := map[string]bool{"blindrelay_build_info": true} // by which the relays are found
	rules := "groups:\n- name: panels\n  rules:\n"
	taken := map[[2]int]string{}
	for i, p := range dashboard.Panels {
		if len(p.Targets) == 0 || p.Datasource.Type != "prometheus" || !strings.Contains(datasource, "\n    uid: "+p.Datasource.UID+"\n") {
			t.Errorf("panel %q has no targets, or the datasource %+v", p.Title, p.Datasource)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies on %q or beside the page", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for j, target := range p.Targets {
			for _, name := range metric.FindAllString(target.Expr, -1) {
				shown[name] = true
				if !slices.Contains(names, name) {
					t.Errorf("panel %q shows %s, which the relay does not have", p.Title, name)
				}
			}
			expr, err := json.Marshal(strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
			if err != nil {
				t.Fatal(err)
			}
			rules += fmt.Sprintf("  - {record: panel_%d_%d, expr: %s}\n", i, j, expr)
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "blindrelay_") && !shown[name] {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
	alerts := read(t, "prometheus/alerts.yml")
	for _, m := range regexp.MustCompile(`(?m)expr: (.+(?:\n          .+)*)`).FindAllStringSubmatch(alerts, -1) {
		for _, name := range metric.FindAllString(m[1], -1) {
			if !slices.Contains(names, name) {
				t.Errorf("an alert asks for %s, which the relay does not have", name)
			}
		}
	}
	tests := read(t, "prometheus/alerts_test.yml")
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(alerts, -1) {
		if n := strings.Count(tests, "alertname: "+m[1]); n < 2 {
			t.Errorf("alert %s is tested %d times: when it fires and when it does not", m[1], n)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("promtool checks the rest and is not installed: apt install prometheus")
	}
	panels := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(panels, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", panels}, {"check", "config", "prometheus/prometheus.yml"}, {"test", "rules", "prometheus/alerts_test.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestRetention finds in each way to run the relay what deletes its log after
// at most 90 days.
func TestRetention(t *testing.T) {
	if !strings.Contains(read(t, "systemd/blindrelay.service"), "\nLogNamespace=blindrelay\n") {
		t.Error("the unit's log goes into the machine's journal")
	}
	for _, file := range []string{"systemd/journald@blindrelay.conf", "systemd/journald-90-days.conf"} {
		text := read(t, file)
		// A file is deleted when it is too old, and holds up to MaxFileSec.
		for _, line := range []string{"[Journal]", "MaxRetentionSec=89day", "MaxFileSec=1day"} {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s lacks %q", file, line)
			}
		}
	}
	compose := read(t, "compose.yaml")
	if images, logs := strings.Count(compose, "\n    image: "), strings.Count(compose, "\n    logging: *journal\n"); images != logs || !strings.Contains(compose, "\nx-logging: &journal\n  driver: journald\n") {
		t.Errorf("compose.yaml: %d of %d services log to the journal", logs, images)
	}
	if !strings.Contains(compose, "--storage.tsdb.retention.time=90d") {
		t.Error("compose.yaml keeps metrics for longer")
	}
}
