//go:build !race

package e2e

// handshakeStride: every byte of a handshake is attacked.
const handshakeStride = 1

// scheduleStride: see TestSchedules.
const scheduleStride = 1
