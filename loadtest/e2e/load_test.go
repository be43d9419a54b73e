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
	var seen struct {
		Viewers, Stalls, Corrupt int
		Bytes                    int64
		NeverStarted             int `json:"never_started"`
	}
	if err := json.Unmarshal(text, &seen); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if seen.Viewers != 8 || seen.Corrupt != 0 || seen.NeverStarted != 0 || seen.Bytes < 8*5*2_000_000/8/2 {
		t.Errorf("the report says %+v", seen)
	}
	t.Logf("%+v", seen)
}
