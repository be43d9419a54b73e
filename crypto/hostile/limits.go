package hostile

import (
	"bytes"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// attacksInLimits lies about the relay's limits and what it has counted.
func attacksInLimits() (all []attack) {
	add := func(s said, position string, want want, frames []byte) {
		all = append(all, attack{"lie about limits", s.name + ": " + position, want, lyingTalk(s, func(*end) []byte { return frames })})
	}
	var every, flood []byte
	for _, code := range wire.Codes() {
		every = wire.Limit{Code: code}.Append(every)
	}
	for n := range 10_000 {
		flood = wire.Limit{Code: wire.Code(n), Limit: 1<<64 - 1, Left: uint64(n), RetryAfter: 1<<32 - 1}.Append(flood)
	}
	receipt := wire.Receipt(bytes.Repeat([]byte{'r'}, wire.MaxReceipt)).Append(nil)
	for _, s := range saids[5:] {
		if s.t == wire.FrameLimit {
			add(s, "an unknown code", whole, wire.Limit{Code: 0x7777}.Append(nil))
			add(s, "each code, nothing left", whole, every)
			add(s, "10,000 of them", whole, flood)
		} else {
			add(s, "1,000 of them", whole, bytes.Repeat(receipt, 1000))
			add(s, "bytes that are no text", leaves(wire.CodeProtocol), []byte{byte(s.t), 0, 3, 'a', 0x1b, 'b'})
		}
	}
	add(saids[5], "a RECEIPT beside it", leaves(wire.CodeProtocol), receipt)
	for _, s := range saids[:3] { // before the greeting is over
		add(s, "a LIMIT in its place", leaves(wire.CodeProtocol), wire.Limit{Code: wire.CodeMemory}.Append(nil))
		add(s, "a RECEIPT in its place", leaves(wire.CodeProtocol), receipt)
	}
	return all
}
