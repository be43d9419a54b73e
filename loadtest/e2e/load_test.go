//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLoad runs the load tool against a relay of its own process.
func TestLoad(t *testing.T) {
	r := openRelay(t)
	report := filepath.Join(t.TempDir(), "report.json")
	run(t, time.Minute, "blindload", "run", "--relay", r.address,
		"--viewers", "8", "--bitrate", "2M", "--duration", "5s", "--json", report).want(t, 0)
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Errorf("the report is no JSON: %s", text)
	}
	t.Logf("%s", text)
}
