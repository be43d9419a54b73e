//go:build !linux

package netwatch

import "time"

// machineClock returns by how much the wall clock is ahead of the monotonic
// one, which stands still while the machine sleeps on most systems. Who sets the
// clock forward looks as if he had slept. Where the monotonic clock goes on
// during sleep, this notices nothing.
func machineClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration {
		now := time.Now()
		return now.Round(0).Sub(start.Round(0)) - now.Sub(start)
	}
}
