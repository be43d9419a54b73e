package probe

import (
	"strings"
	"testing"
)

// FuzzParse reads anything as a process's statistics and as a relay's metrics.
func FuzzParse(f *testing.F) {
	f.Add("1 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 12 34 0 0 20 0 1 0 5 1000 77")
	f.Add("# TYPE blindrelay_streams gauge\nblindrelay_streams 3\nprocess_cpu_seconds_total 1e99\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseStat(s)
		parseMetrics(strings.NewReader(s))
	})
}
