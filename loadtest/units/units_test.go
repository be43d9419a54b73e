package units

import (
	"math"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestUnits(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Rate(0), "0 bit/s"},
		{Rate(999), "999 bit/s"},
		{Rate(8e6), "8 Mbit/s"},
		{Rate(8_123_456), "8.12 Mbit/s"},
		{Rate(742e6), "742 Mbit/s"},
		{Rate(1.5e9), "1.50 Gbit/s"},
		{Rate(5e15), "5,000 Tbit/s"},
		{Rate(-2e6), "-2 Mbit/s"},
		{Bytes(0), "0 B"},
		{Bytes(1023), "1,023 B"},
		{Bytes(65536), "64 KiB"},
		{Bytes(1_288_490_189), "1.20 GiB"},
		{Duration(0), "0 s"},
		{Duration(-90 * time.Millisecond), "-90 ms"},
		{Duration(500), "0.500 µs"},
		{Duration(63 * time.Microsecond), "63 µs"},
		{Duration(1234 * time.Microsecond), "1.23 ms"},
		{Duration(2 * time.Second), "2 s"},
		{Duration(1234 * time.Second), "1,234 s"},
		{Percent(0), "0%"},
		{Percent(0.00021), "0.0210%"},
		{Percent(1), "100%"},
		{Number(0.0000001), "0.000000"},
		{Number(99.96), "100.0"},
		{Number(1234.5), "1,234"},
		{Number(999), "999"},
		{Number(1000), "1,000"},
		{Number(-1000), "-1,000"},
		{Number(-100), "-100"},
		{Number(9213345), "9,213,345"},
		{Number(math.NaN()), "NaN"},
		{Number(math.Inf(1)), "+Inf"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
