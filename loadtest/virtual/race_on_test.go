//go:build race

package virtual

// hostileStride is of how many attacks the race detector, which is slow, sees one.
const hostileStride = 7
