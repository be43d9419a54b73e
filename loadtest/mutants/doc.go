// Package mutants asks whether the tests would notice if somebody weakened the
// protection of the data: it takes one check after the other out of a copy of
// the source, and demands that a test fails each time.
//
//	go test ./loadtest/mutants -mutants . -v -timeout 30m
//
// prints the list of weakenings and what caught each. -mutants is a pattern of
// their names. Without it the tests only look whether every weakening still
// finds its place in the source.
package mutants
