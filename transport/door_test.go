package transport

import (
	"context"
	"testing"
)

// TestDoorSendsAway: as many goroutines wait as handshakes are under way, and
// one; those of handshakes that come to nothing leave.
func TestDoorSendsAway(t *testing.T) {
	d := newDoor()
	waiting := []context.Context{d.again()}
	for range 100 {
		if ctx := d.began(); ctx != nil {
			waiting = append(waiting, ctx)
		}
	}
	if len(waiting) != 101 {
		t.Errorf("%d wait for 100 handshakes", len(waiting))
	}
	for range 100 {
		d.ended()
	}
	left := 0
	for _, ctx := range waiting {
		if ctx.Err() == nil {
			left++
		}
	}
	if left != 1 || len(d.waiting) != 1 {
		t.Errorf("%d wait when nothing is under way, and %d are counted", left, len(d.waiting))
	}
}
