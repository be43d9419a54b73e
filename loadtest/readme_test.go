package loadtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/blindrelay/blindrelay/loadtest/viewer"
	"github.com/blindrelay/blindrelay/transport/netsim"
)

// TestReadme keeps the lists of README.md as the code has them.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, p := range netsim.Profiles() {
		if row := fmt.Sprintf("| `%s` | %s |\n", p.Name, p.Source); !strings.Contains(text, row) {
			t.Errorf("README.md lacks this row of the links:\n%s", row)
		}
	}
	for _, k := range viewer.Kinds() {
		if !strings.Contains(text, string(k)) {
			t.Errorf("README.md does not name the kind %s", k)
		}
	}
}
