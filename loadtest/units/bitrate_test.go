package units

import "testing"

func TestBitrate(t *testing.T) {
	for text, want := range map[string]Bitrate{"8k": 8_000, "8M": 8_000_000, "2.5M": 2_500_000, "1G": 1_000_000_000, "12345": 12_345} {
		var b Bitrate
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s is %d, %v, want %d", text, b, err, want)
		}
		var again Bitrate
		written, _ := b.MarshalText()
		if err := again.UnmarshalText(written); err != nil || again != b {
			t.Errorf("%s is written as %s, which is %d, %v", text, written, again, err)
		}
	}
	for _, text := range []string{"", "M", "8", "7k", "-8M", "8m", "8 M", "0x8M", "1e3", "NaN", "Inf", "101G", "8MM", "1_0M"} {
		var b Bitrate
		if err := b.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d, want an error", text, b)
		}
	}
}
