// Package canary looks for secrets where none may be: in bytes that passed a
// relay, in the memory of its process, in the names that its program was
// linked with.
//
//	var s canary.Scanner
//	err := s.Add("the session's secret", secret)
//	sweep := s.Sweep()
//	sweep.Write(captured)
//	fmt.Println(sweep.Found())
//	m, err := canary.Memory(pid, s.Sweep())
//
// A test that finds nothing shows something only beside one that finds: each
// search needs a control with the same scanner that must hit.
package canary
