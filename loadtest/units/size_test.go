package units

import "testing"

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1": 1, "64K": 64 << 10, "256M": 256 << 20, "2G": 2 << 30} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s is %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "1.5M", "1T", "1KK", "9999999999G", "64k"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d, want an error", text, s)
		}
	}
}
