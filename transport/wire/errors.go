package wire

import "fmt"

// ResetError says that the other end of a stream, or the relay between, ended
// it with a code. It is a hint and never more: it did not come under the
// end-to-end seal.
type ResetError struct{ Code Code }

func (e *ResetError) Error() string { return "stream reset: " + e.Code.String() }

// ClosedError says that a connection between an endpoint and a relay ended
// with a code that one of the two said.
type ClosedError struct {
	Code   Code
	Text   string // the other end's sentence, as it sent it: quote it before it reaches a terminal
	Remote bool   // the other end closed the connection; false: this end did
}

func (e *ClosedError) Error() string {
	who := "closed here"
	if e.Remote {
		who = "closed by the other end"
	}
	if e.Text == "" {
		return fmt.Sprintf("connection %s: %s", who, e.Code)
	}
	return fmt.Sprintf("connection %s: %s (%q)", who, e.Code, e.Text)
}
