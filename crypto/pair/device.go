package pair

import (
	"fmt"
	"slices"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
)

// seenStep is how coarse Device.Seen is, so that use does not wear the disk.
const seenStep = time.Hour

// Device is an allowed device as the agent lists it.
type Device struct {
	Name  string    // unique; 1 to 64 bytes of printable text
	Pin   e2e.Pin   // its identity
	Added time.Time // when it was paired
	Seen  time.Time // when it was last used, to the hour; zero: never
}

// Devices returns the allowed devices in the order in which they were paired.
func (h *Home) Devices() []Device {
	s := h.state.Load()
	all := make([]Device, len(s.Devices))
	for i, d := range s.Devices {
		all[i] = d.device()
	}
	return all
}

func (d savedDevice) device() Device { return Device{d.Name, e2e.Pin(d.Pin), d.Added, d.Seen} }

// Rename gives a device another name, which no other device may have. Names
// are equal whatever their case.
func (h *Home) Rename(old, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return h.update(func(s *homeState) error {
		i := s.index(old)
		if i < 0 {
			return noDevice(old)
		}
		if j := s.index(name); j >= 0 && j != i {
			return fmt.Errorf("another device is named %q already", s.Devices[j].Name)
		}
		s.Devices[i].Name = name
		return nil
	})
}

func noDevice(name string) error {
	return fmt.Errorf("no device is named %q: see `blindlink devices list`", name)
}

// Revoke takes the device off the list and withdraws open invites that carry
// its name. The device is not admitted from then on, unless an invite that was
// made after the revocation pairs it again. The caller ends the device's live
// sessions. If the revocation cannot be written it holds all the same until the
// agent ends, and the error says so.
func (h *Home) Revoke(name string) error {
	return h.restrict(func(s *homeState) error {
		open := len(s.Invites)
		s.Invites = slices.DeleteFunc(s.Invites, func(v savedInvite) bool { return sameName(v.Name, name) })
		i := s.index(name)
		if i < 0 && open == len(s.Invites) && !h.unsaved {
			return noDevice(name)
		}
		if i >= 0 {
			s.revoke(i, now())
		}
		return nil
	})
}

// Admit returns the device with this pin, if it is allowed and remote access
// is on.
func (h *Home) Admit(pin e2e.Pin) (Device, bool) {
	s := h.state.Load()
	i := s.indexPin(pin)
	if i < 0 || !s.Enabled {
		return Device{}, false
	}
	return s.Devices[i].device(), true
}

// MarkSeen notes that a device was used just now. It writes at most once an
// hour for each device, and does nothing for one that is not allowed.
func (h *Home) MarkSeen(pin e2e.Pin) error {
	t := now()
	due := func(s *homeState) int {
		i := s.indexPin(pin)
		if i >= 0 && t.Sub(s.Devices[i].Seen) < seenStep && !t.Before(s.Devices[i].Seen) {
			return -1
		}
		return i
	}
	if due(h.state.Load()) < 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if due(h.state.Load()) < 0 {
		return nil
	}
	return h.updateLocked(func(s *homeState) error {
		s.Devices[s.indexPin(pin)].Seen = t
		return nil
	}, false)
}
