package loadtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/blindrelay/blindrelay/loadtest/viewer"
)

func TestLoadNightly(t *testing.T) {
	s, err := Load(filepath.Join("testdata", "nightly.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if s.viewers() != 18 || s.Groups[0].Kind != viewer.VOD || s.Groups[0].Bitrate != 5_000_000 || s.Groups[1].PauseEvery != 30*time.Second {
		t.Errorf("the nightly scenario is %+v", s)
	}
	if whole := s.Ramp + s.Duration; whole != 2*time.Minute {
		t.Errorf("it takes %v, want 2 minutes", whole)
	}
}

func TestLoadRefuses(t *testing.T) {
	const good = "duration: 10s\ngroups: [{kind: vod, viewers: 1, bitrate: 8M}]\n"
	for name, test := range map[string]struct{ text, hint string }{
		"good":          {good, ""},
		"unknown key":   {good + "bitrates: 8M\n", "bitrates"},
		"no viewers":    {"duration: 10s\n", "0 viewers"},
		"no bitrate":    {"duration: 10s\ngroups: [{kind: vod, viewers: 1}]\n", "bitrate"},
		"bad bitrate":   {"duration: 10s\ngroups: [{kind: vod, viewers: 1, bitrate: fast}]\n", "not a bitrate"},
		"unknown kind":  {"duration: 10s\ngroups: [{kind: opera, viewers: 1, bitrate: 8M}]\n", "opera"},
		"no duration":   {"groups: [{kind: vod, viewers: 1, bitrate: 8M}]\n", "duration"},
		"bad objective": {good + "slo: quick\n", "quick"},
		"negative rate": {good + "arrivals: -1\n", "arrivals"},
		"too many":      {"duration: 10s\ngroups: [{kind: vod, viewers: 20001, bitrate: 8M}]\n", "20001"},
		"not yaml":      {"{", ""},
	} {
		file := filepath.Join(t.TempDir(), "s.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(file)
		if name == "good" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.hint) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v, want the file and %q", name, err, test.hint)
		}
	}
}
