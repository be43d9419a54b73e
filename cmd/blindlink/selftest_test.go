package main

import (
	"strings"
	"testing"
)

func TestSelftest(t *testing.T) {
	r := blindlink(t, "", nil, "selftest").want(t, 0)
	if !strings.Contains(r.stdout, "It works") || !strings.Contains(r.stdout, "a relay should") {
		t.Errorf("%+v", r)
	}
}

// TestHostile runs the attacks in the product.
func TestHostile(t *testing.T) {
	r := blindlink(t, "", nil, "selftest", "--hostile", "--seed", "1").want(t, 0)
	if !strings.Contains(r.stdout, "It holds") || !strings.Contains(r.stdout, "(seed 1)") || strings.Count(r.stdout, "\n") < 50 {
		t.Errorf("%+v", r)
	}
}
