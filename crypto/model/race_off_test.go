//go:build !race

package model

const (
	defaultDepth = 14
	defaultPaths = 300
)
