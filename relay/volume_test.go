package relay

import (
	"encoding/binary"
	"testing"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// TestVolumesAreBounded: a relay forgets one volume for a new one when it knows
// as many as it may, and none for a stream that carried nothing.
func TestVolumesAreBounded(t *testing.T) {
	v := volumes{used: make(map[wire.Route]int64)}
	for n := range maxVolumes {
		var r wire.Route
		binary.BigEndian.PutUint32(r[:], uint32(n+1))
		v.spend(r, 1)
	}
	var other wire.Route
	if used := v.spend(other, 0); used != 0 || len(v.used) != maxVolumes {
		t.Errorf("a route that carried nothing has used %d", used)
	}
	if _, known := v.used[other]; known {
		t.Error("a route that carried nothing takes the place of another one")
	}
	if used := v.spend(other, 7); used != 7 || len(v.used) != maxVolumes {
		t.Errorf("a route has used %d, want 7; %d are known, at most %d may be", used, len(v.used), maxVolumes)
	}
}
