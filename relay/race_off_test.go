//go:build !race

package relay

import "time"

const raceEnabled = false

// churnTime is how long TestChurn lasts, in virtual time, and a round begins
// every roundEvery of it.
const (
	churnTime  = 24_000 * time.Second
	roundEvery = 40 * time.Second
)
