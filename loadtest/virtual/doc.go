// Package virtual holds tests of the whole path, device to relay to agent and
// back, on a simulated network in virtual time: what they say about round
// trips is exact and the same on every machine. How long a recovery takes also
// depends on pauses of random length.
package virtual
