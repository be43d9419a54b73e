//go:build race

package model

// The race detector makes everything several times as slow.
const (
	defaultDepth = 11
	defaultPaths = 60
)
