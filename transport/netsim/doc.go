// Package netsim emulates an endpoint's access line in user space: a home's
// or a device's way to the network, with its rate, queue, delay, jitter, loss,
// outages and changes of address. Every socket that a [Line] wraps shares that
// line's two links, as the sockets of one home do.
//
//	path, err := netsim.ParseProfile("lte,loss=0.5%,up.rate=4M")
//	line, err := netsim.New(netsim.Config{Path: path, Seed: 7})
//	pc, err := line.WrapPacketConn(udp)       // for QUIC
//	client := &http.Transport{DialContext: line.Dial} // for TCP
//	err = line.Rebind()                       // a new address, now
//	err = line.Close()                        // sends what is on its way, waits
//
// A Line can also be a cable between two devices of IP packets, below the
// kernel's TCP and UDP: see [Line.Join], and loadtest/netns for namespaces.
//
// # What it promises
//
// The fate of a packet is computed when it reaches a link, from the seed, the
// packet's number on that link, its size and its time of arrival. The same seed
// and the same packets at the same times have the same fates; which packets the
// loss process takes depends on their numbers alone, not on time. Each property
// draws from a generator of its own, so that adding jitter moves no loss.
//
// In order: the packet is lost or not (decided first, effective last), waits in
// a queue that drops what does not fit, is transmitted at the link's rate, and
// travels for the delay and its jitter. Nothing is reordered unless asked. Rates
// count packets as IPv4 sends them: each datagram is 28 bytes longer than its
// payload, each TCP segment carries 1460 bytes and is 1500 long. Datagrams above
// an MTU of 1500 are dropped.
//
// Time is time.Now and timers. Inside a testing/synctest bubble all of it is
// virtual and exact; make the Line and its sockets in the bubble, and Close the
// Line before the bubble's first goroutine returns. In real time a packet leaves
// up to about 1 ms late, because Go's timers sleep in epoll_wait, which counts
// milliseconds, and later on a machine that is short of CPU. Lateness does not
// add up: the schedule is not moved by it, so rates hold; but packets that fall
// due while the timer sleeps leave together. On two busy cores the mean was 0.3
// to 0.9 ms, the worst of a second 4 to 60 ms. [LinkStats] has the lateness that
// was seen, so that a run can tell whether it measured the emulator.
//
// A datagram costs about 2 µs of CPU more than on a bare socket, each 64 KiB of a
// stream about 40 µs (BenchmarkSocket and BenchmarkStream print both); the fate
// alone takes 10 to 50 ns and allocates nothing.
//
// # What it does not promise
//
// A wrapped UDP socket is a plain net.PacketConn: segmentation offload, ECN and
// path MTU discovery are off, and a sender costs more CPU than on a bare socket.
//
// TCP of a wrapped connection is emulated above the kernel's TCP, where loss
// cannot be honest; over a cable it is the kernel's own. A lost segment arrives
// one round trip later (200 ms more, doubling, for each loss of its
// retransmission), and what follows in its connection waits for it. There is no
// congestion window: no slow start, and no slowing after a loss. So TCP over a
// lossy link, and the first round trips of any TCP connection, are faster here
// than they would be: a figure of TCP over a path with loss is an upper bound. A
// connection never finds the queue full; it holds at most what the link and its
// queue hold, then Write waits. Acknowledgements take no room on the other link.
// What is right are rate, delay, queueing, outages and the standstill that a loss
// causes. A connection that is dialed costs a round trip; one that was wrapped
// after it was accepted does not. A change of address resets TCP connections at
// both ends; in the world the far end would wait.
//
// Time on a link starts when the Line is made: outages, traces and changes of
// rate run from there, used or not.
package netsim
