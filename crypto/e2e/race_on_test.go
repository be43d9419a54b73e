//go:build race

package e2e

// handshakeStride is how far apart the attacked bytes of a handshake are. The
// race detector makes a handshake ten times as slow.
const handshakeStride = 31

// scheduleStride is how many times fewer schedules are run.
const scheduleStride = 30
