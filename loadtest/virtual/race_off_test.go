//go:build !race

package virtual

const hostileStride = 1
