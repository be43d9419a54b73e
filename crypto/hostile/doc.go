// Package hostile attacks the end-to-end protocol as a relay can: it puts a
// relay in memory between true endpoints, which has none of their keys and does
// what it likes with everything that passes, and looks at what the applications
// get.
//
//	results := hostile.Run(ctx, hostile.Attacks(), seed, 16)
//	survivors, err := hostile.Print(os.Stdout, results)
//
// The relay sees what every relay sees: its own frames, and of a stream where
// prefaces, records and TLS messages begin and end (crypto/DESIGN.md, sections
// 5 and 8). An attack is one thing that it does at one place. Whatever it is,
// an application must have read a strict prefix of what the other one wrote and
// then been told an error, or all of it and then the end: never a wrong byte,
// never an end too early, nothing twice, nothing of a stranger's. Beside that
// each attack has an outcome of its own, most often an error that says that
// the relay or the network did it. Whatever else comes of it counts as a success of
// the relay's, and so does an attack that did not take place.
//
// Attacks do not depend on time, but for how long an endpoint waits for an
// answer; they run in a synctest bubble or, within about ten seconds, in real time.
package hostile
