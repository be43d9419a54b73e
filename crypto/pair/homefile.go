package pair

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	homeName    = "home.json"
	homeVersion = 1

	// maxInvites is how many invites may be open at once.
	maxInvites = 16
	// maxDevices is how many devices may be allowed, such that their tokens and
	// those of all open invites fit one registration.
	maxDevices = wire.MaxTokens - maxInvites
	// maxRevoked is how many revoked devices are remembered; the oldest go first.
	maxRevoked = 1000
)

// homeState is what home.json holds. A value that was published is never
// changed: writers change a clone.
type homeState struct {
	Version int `json:"version"`
	// Generation counts the writes. Zero: the first start was interrupted, the
	// keys are not all there and nobody has seen one.
	Generation uint64         `json:"generation"`
	Enabled    bool           `json:"enabled"` // remote access
	Server     string         `json:"server"`  // the name that devices show
	Relays     []wire.Relay   `json:"relays"`
	Devices    []savedDevice  `json:"devices"`
	Revoked    []savedRevoked `json:"revoked"`
	Invites    []savedInvite  `json:"invites"`
}

type savedDevice struct {
	Name  string    `json:"name"`
	Pin   pinText   `json:"pin"`
	Added time.Time `json:"added"`
	Seen  time.Time `json:"seen,omitzero"`
}

// savedRevoked is the tombstone of a device.
type savedRevoked struct {
	Name       string    `json:"name"`
	Pin        pinText   `json:"pin"`
	Revoked    time.Time `json:"revoked"`
	Generation uint64    `json:"generation"` // of the write that revoked it
}

// savedInvite is an open invite without its secret.
type savedInvite struct {
	Name       string    `json:"name,omitempty"` // for the device; empty: the device's own
	Secret     hash      `json:"secret"`         // secretHash
	Token      hash      `json:"token"`          // wire.TokenHash of Invite.Token
	Expires    time.Time `json:"expires"`
	Approve    bool      `json:"approve,omitempty"`
	Generation uint64    `json:"generation"` // of the write that opened it
}

// pinText is a pin that is text in JSON.
type pinText e2e.Pin

func (p pinText) MarshalText() ([]byte, error) { return []byte(e2e.Pin(p).String()), nil }

func (p *pinText) UnmarshalText(b []byte) error {
	pin, err := e2e.ParsePin(string(b))
	*p = pinText(pin)
	return err
}

// hash is a SHA-256 that is text in JSON, in the spelling of a pin.
type hash = pinText

func (s *homeState) clone() *homeState {
	c := *s
	c.Relays = slices.Clone(s.Relays)
	c.Devices = slices.Clone(s.Devices)
	c.Revoked = slices.Clone(s.Revoked)
	c.Invites = slices.Clone(s.Invites)
	return &c
}

func (s *homeState) encode() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	return append(b, '\n'), err
}

// parseHome reads home.json and demands everything that the methods of Home
// maintain, so that a file edited by hand is refused rather than half obeyed.
func parseHome(b []byte) (*homeState, error) {
	s := new(homeState)
	if err := decodeState(b, homeVersion, s); err != nil {
		return nil, err
	}
	if s.Generation == 0 && len(s.Relays)+len(s.Devices)+len(s.Revoked)+len(s.Invites) > 0 {
		return nil, errors.New("it has no generation, yet it lists something")
	}
	if err := checkName(s.Server); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if len(s.Relays) > 0 {
		if err := checkRelays(s.Relays); err != nil {
			return nil, err
		}
	}
	if len(s.Devices) > maxDevices || len(s.Revoked) > maxRevoked || len(s.Invites) > maxInvites {
		return nil, fmt.Errorf("it lists %d devices, %d revoked ones and %d invites, at most %d, %d and %d are possible",
			len(s.Devices), len(s.Revoked), len(s.Invites), maxDevices, maxRevoked, maxInvites)
	}
	pins := map[pinText]bool{}
	for i, d := range s.Devices {
		if err := checkName(d.Name); err != nil {
			return nil, fmt.Errorf("device %d: %w", i+1, err)
		}
		if pins[d.Pin] || s.index(d.Name) != i {
			return nil, fmt.Errorf("the device %q or its pin stands there twice", d.Name)
		}
		pins[d.Pin] = true
	}
	for i, r := range s.Revoked {
		if err := checkName(r.Name); err != nil {
			return nil, fmt.Errorf("revoked device %d: %w", i+1, err)
		}
		if pins[r.Pin] {
			return nil, fmt.Errorf("the pin of the revoked device %q stands there twice", r.Name)
		}
		pins[r.Pin] = true
	}
	for i, v := range s.Invites {
		if v.Name != "" {
			if err := checkName(v.Name); err != nil {
				return nil, fmt.Errorf("invite %d: %w", i+1, err)
			}
		}
		if v.Secret == (hash{}) || v.Token == (hash{}) {
			return nil, errors.New("an invite has no hash")
		}
	}
	return s, nil
}

// index returns the place of the device with this name, or -1.
func (s *homeState) index(name string) int {
	return slices.IndexFunc(s.Devices, func(d savedDevice) bool { return sameName(d.Name, name) })
}

// indexPin returns the place of the device with this pin, or -1.
func (s *homeState) indexPin(pin e2e.Pin) int {
	return slices.IndexFunc(s.Devices, func(d savedDevice) bool { return d.Pin == pinText(pin) })
}

// sweep drops expired invites.
func (s *homeState) sweep(now time.Time) {
	s.Invites = slices.DeleteFunc(s.Invites, func(v savedInvite) bool { return !now.Before(v.Expires) })
}

// revoke moves the device at i to the tombstones.
func (s *homeState) revoke(i int, now time.Time) {
	d := s.Devices[i]
	s.Devices = slices.Delete(s.Devices, i, i+1)
	s.Revoked = append(s.Revoked, savedRevoked{Name: d.Name, Pin: d.Pin, Revoked: now, Generation: s.Generation})
	if n := len(s.Revoked) - maxRevoked; n > 0 {
		s.Revoked = slices.Delete(s.Revoked, 0, n)
	}
}

// admit adds a device by an invite that was opened with the given generation.
// A device that is there already stays as it is. The tombstone of a revoked
// device goes, if the invite is newer than it; an older invite is refused.
func (s *homeState) admit(pin e2e.Pin, name string, opened uint64, now time.Time) (savedDevice, error) {
	if i := s.indexPin(pin); i >= 0 {
		return s.Devices[i], nil
	}
	for _, r := range s.Revoked {
		if r.Pin == pinText(pin) && r.Generation >= opened {
			return savedDevice{}, refuse(refusedInvite, fmt.Sprintf("the device was revoked (as %q) after the invite was made", r.Name))
		}
	}
	if len(s.Devices) >= maxDevices {
		return savedDevice{}, errDevicesFull
	}
	s.Revoked = slices.DeleteFunc(s.Revoked, func(r savedRevoked) bool { return r.Pin == pinText(pin) })
	d := savedDevice{
		Name:  uniqueName(name, func(n string) bool { return s.index(n) >= 0 }),
		Pin:   pinText(pin),
		Added: now,
	}
	s.Devices = append(s.Devices, d)
	return d, nil
}

var errDevicesFull = fmt.Errorf("%d devices are paired, no more are possible: revoke one with `blindlink devices revoke NAME`", maxDevices)

// invite returns the invite of a secret's hash, unless it has expired. It
// looks at all of them whether or not one matches.
func (s *homeState) invite(secret hash, now time.Time) (inv savedInvite, found bool) {
	for _, v := range s.Invites {
		if subtle.ConstantTimeCompare(v.Secret[:], secret[:]) == 1 && now.Before(v.Expires) {
			inv, found = v, true
		}
	}
	return inv, found
}

func (s *homeState) dropInvite(secret hash) {
	s.Invites = slices.DeleteFunc(s.Invites, func(v savedInvite) bool { return v.Secret == secret })
}
