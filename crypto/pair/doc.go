// Package pair decides which devices may reach a media server: it keeps the
// keys, makes and reads invites, speaks the pairing conversation, and holds
// the list of devices at home and the list of servers on a device.
//
//	home, err := pair.OpenHome(dir)                    // at home
//	inv, err := home.NewInvite("tv", 0, false)
//	fmt.Println(inv.Text())                            // BR1:AEAA...
//	dev, err := home.Serve(ctx, conn, pin, binding, approve)
//
//	away, err := pair.OpenAway(dir)                    // on the device
//	inv, err := pair.ParseInvite(text)
//	srv, err := pair.Request(ctx, conn, inv, hostname)
//	srv, err = away.Add(srv)
//
// What it promises: an invite pairs one device and no more; a device that was
// revoked is not admitted again without a new invite, whatever moment the
// machine loses power at; a state file that is damaged, newer than the
// program, or open to other users stops the start and is never read as an
// empty list.
package pair
