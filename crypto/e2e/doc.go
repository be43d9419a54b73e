// Package e2e is the end-to-end protocol between a device and a media
// server's agent. A relay stands between the two and is assumed hostile: it
// may drop, delay, copy, reorder, splice, cut and inject bytes, but it learns
// no content and changes none unnoticed.
//
// The device opens a session on one stream through the relay, and then as many
// sealed streams as it needs:
//
//	s, err := e2e.Connect(ctx, stream, e2e.ClientConfig{Identity: id, Server: pin, Open: open})
//	conn, err := s.OpenStream(ctx) // a net.Conn; no round trip
//
// The agent hands every incoming stream to a Server and serves what it accepts:
//
//	srv, err := e2e.NewServer(e2e.ServerConfig{Identity: id, Admit: devices.Admit})
//	go srv.Handle(attachment, stream) // for each stream from the relay
//	conn, err := srv.Accept()         // conn.Peer() is the device
//
// A session outlives the relay connections that carry it: [Session.Join] takes
// it to another one, and its streams go on there from the record where they
// stopped.
//
// A Read that returns io.EOF has read all that the other endpoint wrote, in
// order and unchanged. What a relay does that cannot be made good becomes an
// error that is not io.EOF; [ErrTampered] tells attacks from failures. The protocol is described
// in crypto/DESIGN.md.
package e2e
