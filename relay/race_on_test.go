//go:build race

package relay

import "time"

const raceEnabled = true

// churnTime is how long TestChurn lasts, in virtual time, and a round begins
// every roundEvery of it: the race detector is slow.
const (
	churnTime  = 4_000 * time.Second
	roundEvery = 40 * time.Second
)
