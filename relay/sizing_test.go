package relay

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestSizing holds the figures of deploy/SIZING.md against what a relay
// reserves.
func TestSizing(t *testing.T) {
	text, err := os.ReadFile("../deploy/SIZING.md")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{BufferMemory: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	streams := 0
	for {
		if _, _, ok := r.budget.Join(); !ok {
			break
		}
		streams++
	}
	each := float64(r.budget.Stats().Reserved) / float64(streams) / (1 << 20)
	for _, want := range []string{
		fmt.Sprintf("A stream reserves %.2f MiB", each),
		fmt.Sprintf("x S x %.2f MiB", each),
		fmt.Sprintf("1 GiB for %d streams", streams),
		fmt.Sprintf("| %.0f MiB |", 16./15*400*each),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("deploy/SIZING.md does not say %q", want)
		}
	}
}
