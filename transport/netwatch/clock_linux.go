package netwatch

import (
	"time"

	"golang.org/x/sys/unix"
)

// machineClock returns for how long the machine has slept since it was started:
// CLOCK_BOOTTIME counts that, CLOCK_MONOTONIC does not (clock_gettime(2)).
func machineClock() func() time.Duration {
	return func() time.Duration {
		var boot, mono unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
			return 0
		}
		return time.Duration(boot.Nano() - mono.Nano())
	}
}
