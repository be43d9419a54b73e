//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	loadresult "github.com/blindrelay/blindrelay/loadtest/result"
)

// TestLoad runs the load tool against a relay of its own process.
func TestLoad(t *testing.T) {
	r := openRelay(t)
	report := filepath.Join(t.TempDir(), "report.json")
	done := run(t, time.Minute, "blindload", "run", "--relay", r.address,
		"--viewers", "8", "--bitrate", "2M", "--ramp", "1s", "--duration", "5s", "--json", report, "--slo", "never_started<=0,errors<=0")
	seen, err := loadresult.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Bottleneck != "" {
		t.Log(seen.Bottleneck) // this machine is busy: the figures count, the exit code is 3
		done.want(t, 3)
	} else {
		done.want(t, 0)
	}
	v := seen.Viewers
	if v.Arrived != 8 || v.Started != 8 || v.Corrupt != 0 || v.Verified != v.Bytes || v.Bytes < 8*5*2_000_000/8/2 || seen.ErrorCount() != 0 {
		t.Errorf("the report says %+v, errors %v", v, seen.Errors)
	}
}

// TestLoadSelf runs a mix of viewers through a relay that blindload starts.
func TestLoadSelf(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "run.html")
	report := filepath.Join(dir, "run.json")
	done := run(t, time.Minute, "blindload", "run", "--self", "--kind", "seek", "--viewers", "4", "--bitrate", "1M",
		"--link", "cable", "--home-link", "fibre", "--ramp", "1s", "--duration", "5s", "--report", page, "--json", report)
	seen, err := loadresult.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if seen.Relay == nil || seen.Relay.CPU <= 0 || seen.Relay.Memory <= 0 {
		t.Errorf("the relay of --self took %+v", seen.Relay)
	}
	if seen.Viewers.Started != 4 || seen.Viewers.Corrupt != 0 {
		t.Errorf("the report says %+v", seen.Viewers)
	}
	if seen.Bottleneck == "" {
		done.want(t, 0)
	}
	if compared := run(t, time.Minute, "blindload", "compare", report, report).want(t, 0); !strings.Contains(compared.stdout, "goodput") {
		t.Errorf("compare says %s", compared.stdout)
	}
}
