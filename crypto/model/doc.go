// Package model has no code, only tests. They explore pairing, admission,
// revocation, remote access and resumption as a state machine of two devices,
// an agent and a relay, in all interleavings, with invariants that are checked
// in every state and at every step. The steps are then taken with the real
// packages pair and e2e, and what these do has to be what the model says.
//
//	go test ./crypto/model -v                   how many states, steps and paths
//	go test ./crypto/model -run Real -paths 0   every step from every state that the model reaches
//
// The relay of the model cuts, kills, replays and connects with a key of its
// own. That it learns no content and forges no record is not part of the model:
// package e2e tests it on bytes.
package model
