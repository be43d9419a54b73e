// Package relay joins the streams of devices to the agent of the route that
// they ask for, and forwards sealed bytes in both directions through a bounded
// buffer in memory. It holds no key of a payload, writes nothing to disk, and
// has no state that must survive a restart.
//
//	r, err := relay.New(relay.Config{Admit: policy, BufferMemory: 1 << 30})
//	go r.Serve(ctx, listener)
//	...
//	r.Drain(ctx, 30*time.Second)
//	r.Shutdown(ctx)
//
// # The life of a stream
//
//  1. A socket of transport/udp receives packets; transport turns them into a
//     session: relay.go accepts it, session.go reads its HELLO. A session
//     whose client proved a key is an agent's and, if the policy admits it
//     (admission.go, package admit), registers its route (registry.go), over
//     up to eight connections; any other is a device's.
//  2. A device opens a stream. route.go reads the OPEN frame, finds the agent
//     takes a slot (slot.go: limits on streams, devices, volume), finds the one
//     of its connections where the device's streams go, reserves a
//     share of the buffer memory, opens a stream to the agent and writes
//     INCOMING. With MEASURE instead, measure.go only counts what passes.
//  3. forward.go joins the two streams: in each direction one goroutine fills
//     a jitter.Buffer from the faster side and one drains it into the slower,
//     when it is its turn: package share divides the line and keeps to rates.
//     A full buffer stops the reading, and QUIC's flow control carries that
//     back to the sender. A byte is never dropped.
//  4. A half ends with FIN, which passes through after the last byte. A reset
//     ends both halves with a code that the other end can read.
//
// A forwarded stream costs four goroutines, an idle session one, besides the
// two that its carrier has for each connection.
//
// Limits are in limit.go, what a route may of them in its terms. Endpoints are
// told of those that they meet (tell.go); a route's volume of a month is counted
// in memory, and receipts carry it over a restart (volume.go).
//
// Whom a policy admits for a time only is judged anew when that is over, and
// everybody when the policy changes: who is no longer admitted is told so and
// ended.
//
// A relay that is to be replaced is emptied first (drain.go): its endpoints are
// asked to move, one after the other, and no new one comes in.
//
// A stream that ends in any other way than FIN is noticed at once in every
// state but one: when one half has ended and the buffer of the other is full,
// a reset of that other half is seen as soon as its reader goes on. The end of
// a session is always seen at once.
//
// # Memory
//
// What a relay holds at most, in bytes:
//
//	base            15 MiB of the program itself
//	+ BufferMemory  which all forwarded streams share
//	+ sessions x 128 KiB, of which there are MaxSessions
//	+ what is on its way in the network, see below
//
// Of the sessions, 1,024 may be such whose HELLO has not arrived, besides those
// that came within 2 s: more of them push out the oldest (greeting.go).
//
// A sixteenth of BufferMemory is for streams whose OPEN has not arrived, one
// receive window each; when it is used up a new one pushes out the oldest
// (waiting.go). The rest is for forwarded streams. Each reserves, and gives back
// when it has ended:
//
//	2 x floor        64 KiB of jitter buffer in each direction, in blocks of 16 KiB
//	2 x window x 9/8 what QUIC received and fill has not read: 512 KiB, and the
//	                 rest of the packets that it lies in
//	64 KiB           four stacks of 8 KiB, quic-go's two streams, ours
//
// Above the floors, the buffers of all streams take blocks out of what is left
// of BufferMemory, each direction up to JitterBuffer: see package jitter.
//
// Three things are not in BufferMemory. A sender that cuts its bytes into STREAM
// frames of 128 bytes makes quic-go hold 1,452 for each, so that its windows
// cost up to 11 times as much. What was sent and not acknowledged is held by
// quic-go until it is: at most the congestion window of each connection, 10,000
// packets, and for 30 s after an endpoint has vanished. And the garbage
// collector lets garbage grow to a share of all the above (GOGC).
//
// # Words
//
//   - agent: the home side, beside the media server. It registers a route.
//   - device: the away side. It opens streams to a route.
//   - server: the media server itself; the relay never speaks with it.
//   - route: the agent's name on relays, the hash of its route key.
//   - session: one connection between an endpoint and a relay.
//   - stream: an ordered pair of halves in a session; forwarded streams join
//     one of a device to one of an agent.
//   - ticket: what an agent shows a relay to be admitted, signed by an issuer
//     whom the relay's operator trusts.
//   - slot: the right to forward one stream.
//   - receipt: what an agent keeps for the relay: how much of its volume is used.
//   - attachment: the number under which an agent sees a device's session.
//   - carrier: what brings a session's bytes: QUIC, or TLS on TCP.
//   - viewer: a simulated person in a load test.
package relay
