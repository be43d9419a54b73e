package endpoint

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// Verification is what people at the two ends of a session compare to know that
// nobody stands between: see [e2e.Proof]. Both ends show the same, but for Since,
// which each end has from its own clock, and Server, which a device may have
// stored under another name.
type Verification struct {
	Device    string    `json:"device"` // its name on the owner's list
	Server    string    `json:"server"` // its name
	Words     string    `json:"words"`  // six, with blanks between
	DevicePin string    `json:"device_pin"`
	ServerPin string    `json:"server_pin"`
	Suite     string    `json:"suite"`
	Group     string    `json:"group"` // of the key exchange
	Since     time.Time `json:"since"`
}

func verification(p e2e.Proof, device, server string) Verification {
	return Verification{
		Device: device, Server: server, Words: p.Words(),
		DevicePin: p.Device.String(), ServerPin: p.Server.String(),
		Suite: tls.CipherSuiteName(p.Suite), Group: p.Group.String(), Since: p.Since,
	}
}

// Verify returns what to compare with each device that is connected now, the
// oldest session first.
func (a *Agent) Verify() []Verification {
	names := a.names()
	all := []Verification{}
	for _, p := range a.server.Proofs() {
		all = append(all, verification(p, names[p.Device], a.home.Server()))
	}
	return all
}

// names returns what the owner calls the devices.
func (a *Agent) names() map[e2e.Pin]string {
	names := make(map[e2e.Pin]string)
	for _, d := range a.home.Devices() {
		names[d.Pin] = d.Name
	}
	return names
}

// Verify returns what to compare with the server, and a channel that is closed
// when the session has ended that it is about: the next session has other
// words. It waits for a session as Connect does.
func (d *Dialer) Verify(ctx context.Context) (v Verification, ended <-chan struct{}, err error) {
	session, err := d.admitted(ctx)
	if err != nil {
		return v, nil, err
	}
	return verification(session.Proof(), d.server.Device, d.server.Name), session.Done(), nil
}
