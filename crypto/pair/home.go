package pair

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	identityName = "identity.key"
	routeName    = "route.key"
	tokenName    = "token.key"

	// homeWait is how long OpenHome waits for the lock: long enough for another
	// command that works on the files, `share` holds it for hours.
	homeWait = time.Second
	// defaultTTL and maxTTL bound the life of an invite.
	defaultTTL = time.Hour
	maxTTL     = 30 * 24 * time.Hour
)

// Home is the state of an agent: its keys, the devices it allows, its open
// invites, and what it needs to print invites. One process holds it at a time.
// Its methods are safe for concurrent use. Those that change something return
// after the change is on disk; if they fail, nothing changed unless the error
// says so.
type Home struct {
	dir      *dir
	identity crypto.Signer
	route    crypto.Signer
	routeID  wire.Route
	pin      e2e.Pin
	tokenKey []byte // K_tok, 32 bytes

	state atomic.Pointer[homeState] // replaced under mu after the file was

	mu       sync.Mutex
	lock     *os.File // nil after Close
	changed  chan struct{}
	unsaved  bool          // memory holds a restriction that could not be written
	reserved map[hash]bool // invites whose owner is being asked; at most maxInvites
	failures int           // failed pairings since window began
	window   time.Time
}

// OpenHome opens the agent's state directory and makes it on first start. It
// returns [ErrInUse] if another process holds the directory: a running `share`
// is then asked through its socket. It refuses a directory or file that other
// users may look into or own, a symbolic link in place of a file, and a file
// that is malformed, incomplete or newer than this program. The caller closes
// the Home.
func OpenHome(path string) (*Home, error) {
	d, err := openDir(path)
	if err != nil {
		return nil, err
	}
	lock, err := d.lock(homeWait)
	if err != nil {
		d.root.Close()
		return nil, err
	}
	h := &Home{dir: d, lock: lock, changed: make(chan struct{}), reserved: make(map[hash]bool)}
	if err := h.load(); err != nil {
		h.Close()
		return nil, fmt.Errorf("open the agent's state: %w", err)
	}
	return h, nil
}

func (h *Home) load() error {
	b, err := h.dir.read(homeName, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		if err := h.dir.unmade(homeName, identityName, routeName, tokenName); err != nil {
			return err
		}
		host, _ := os.Hostname() // an empty name is replaced
		s := &homeState{Version: homeVersion, Enabled: true, Server: cleanName(host, "server")}
		if b, err = s.encode(); err == nil {
			_, err = h.dir.write(homeName, b)
		}
	}
	if err != nil {
		return err
	}
	s, err := parseHome(b)
	if err != nil {
		return fmt.Errorf("%s: %w; restore it from a backup (an empty one would shut every device out)", h.dir.file(homeName), err)
	}
	h.state.Store(s)
	if s.Generation == 0 {
		if err := h.create(); err != nil {
			return err
		}
	}
	if h.identity, err = h.dir.loadKey(identityName); err != nil {
		return err
	}
	if h.route, err = h.dir.loadKey(routeName); err != nil {
		return err
	}
	if h.tokenKey, err = h.dir.readPEM(tokenName, pemToken); err != nil {
		return err
	}
	if len(h.tokenKey) != 32 {
		return fmt.Errorf("%s does not hold 32 bytes: restore it from a backup", h.dir.file(tokenName))
	}
	if h.pin, err = e2e.PinOf(h.identity.Public()); err != nil {
		return err
	}
	der, err := spki(h.route)
	h.routeID = wire.RouteOf(der)
	return err
}

// create makes the keys, then marks the state as complete.
func (h *Home) create() error {
	for _, name := range []string{identityName, routeName} {
		if err := h.dir.createKey(name); err != nil {
			return err
		}
	}
	key := make([]byte, 32)
	rand.Read(key)
	if _, err := h.dir.write(tokenName, pem.EncodeToMemory(&pem.Block{Type: pemToken, Bytes: key})); err != nil {
		return err
	}
	return h.update(func(*homeState) error { return nil })
}

// Close gives the directory free. It does not wait for running methods.
func (h *Home) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lock == nil {
		return nil
	}
	err := errors.Join(h.lock.Close(), h.dir.root.Close())
	h.lock = nil
	return err
}

// update writes a changed clone of the state and then publishes it. If change
// fails, nothing is written. Expired invites go on the way.
func (h *Home) update(change func(*homeState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.updateLocked(change, false)
}

// restrict is update for a change that takes rights away: it is in force in
// this process even if it cannot be written.
func (h *Home) restrict(change func(*homeState) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.updateLocked(change, true)
}

func (h *Home) updateLocked(change func(*homeState) error, anyway bool) error {
	if h.lock == nil {
		return errors.New("the agent's state is closed")
	}
	next := h.state.Load().clone()
	next.sweep(now())
	next.Generation++
	if err := change(next); err != nil {
		return err
	}
	b, err := next.encode()
	if err != nil {
		return err
	}
	visible, err := h.dir.write(homeName, b)
	if !visible && !anyway {
		return err
	}
	h.unsaved = !visible
	h.state.Store(next)
	close(h.changed)
	h.changed = make(chan struct{})
	if !visible {
		return fmt.Errorf("the change is not stored and is gone when `blindlink share` stops; it holds until then: %w; repeat it once that is mended", err)
	}
	if err != nil {
		return fmt.Errorf("the change is in force but may not survive a power cut: %w", err)
	}
	return nil
}

// now is the present to the second, as files keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// Changed returns a channel that is closed at the next change of anything
// Admit, Enabled or Tokens depends on, and possibly at others. Take the
// channel first, then look, then wait.
func (h *Home) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// Identity returns the key that devices know this server by.
func (h *Home) Identity() crypto.Signer { return h.identity }

// Pin returns the pin of Identity.
func (h *Home) Pin() e2e.Pin { return h.pin }

// RouteKey returns the key that proves the route to relays. It is used for
// nothing else.
func (h *Home) RouteKey() crypto.Signer { return h.route }

// Route returns the server's name on relays, made of RouteKey.
func (h *Home) Route() wire.Route { return h.routeID }

// Server returns the server's name as devices show it: the machine's hostname
// at the first start.
func (h *Home) Server() string { return h.state.Load().Server }

// Relays returns the relays that SetRelays stored, none before.
func (h *Home) Relays() []wire.Relay { return slices.Clone(h.state.Load().Relays) }

// SetRelays stores the 1 to 3 relays that invites and paired devices are told.
func (h *Home) SetRelays(relays []wire.Relay) error {
	if err := checkRelays(relays); err != nil {
		return err
	}
	if slices.Equal(relays, h.state.Load().Relays) {
		return nil
	}
	return h.update(func(s *homeState) error {
		s.Relays = slices.Clone(relays)
		return nil
	})
}

// Enabled reports whether the owner allows remote access.
func (h *Home) Enabled() bool { return h.state.Load().Enabled }

// SetEnabled turns remote access on or off. While it is off no device is
// admitted, none can pair, and Tokens is empty. Turning it off withdraws every
// open invite. If it cannot be written that remote access is off, it is off all
// the same until the agent ends, and the error says so.
func (h *Home) SetEnabled(on bool) error {
	h.mu.Lock()
	same := on == h.Enabled() && !h.unsaved
	h.mu.Unlock()
	if same {
		return nil
	}
	update := h.update
	if !on {
		update = h.restrict
	}
	return update(func(s *homeState) error {
		s.Enabled = on
		if !on {
			s.Invites = nil
		}
		return nil
	})
}

// NewInvite opens an invite. The device gets the given name, or with an empty
// one the name it gives itself. A ttl of zero is an hour; the most is 30 days.
// With approve the owner is asked when the device comes. At most 16 invites
// are open at once. Only hashes of the invite's secrets are kept.
func (h *Home) NewInvite(name string, ttl time.Duration, approve bool) (Invite, error) {
	if ttl == 0 {
		ttl = defaultTTL
	}
	if ttl < time.Second || ttl > maxTTL {
		return Invite{}, fmt.Errorf("an invite cannot be good for %v: from one second to %v are possible", ttl, maxTTL)
	}
	if name != "" {
		if err := checkName(name); err != nil {
			return Invite{}, err
		}
	}
	inv := Invite{Server: h.pin, Route: h.routeID, Approve: approve}
	rand.Read(inv.secret[:])
	err := h.update(func(s *homeState) error {
		switch {
		case !s.Enabled:
			return errors.New("remote access is off: turn it on first with `blindlink on`")
		case len(s.Relays) == 0:
			return errors.New("no relay is known yet: run `blindlink share --relay HOST:PORT` first")
		case len(s.Devices) >= maxDevices:
			return errDevicesFull
		case len(s.Invites) >= maxInvites:
			return fmt.Errorf("%d invites are open, no more are possible: wait until one is used or expires, or withdraw all of them with `blindlink off`, then `blindlink on`", maxInvites)
		}
		inv.Relays = slices.Clone(s.Relays)
		inv.Expires = now().Add(ttl).Truncate(time.Second)
		s.Invites = append(s.Invites, savedInvite{
			Name:       name,
			Secret:     secretHash(inv.secret),
			Token:      hash(inv.Token().Hash()),
			Expires:    inv.Expires,
			Approve:    approve,
			Generation: s.Generation,
		})
		return nil
	})
	if err != nil {
		return Invite{}, err
	}
	return inv, nil
}

// secretHash is the form in which an invite's secret is kept.
func secretHash(secret [16]byte) hash {
	return sha256.Sum256(append([]byte("blindrelay-invite-secret/1\x00"), secret[:]...))
}

// Token returns the token that lets a device through relays:
// HMAC-SHA256(token key, "blindrelay-tok/1" || 0x00 || pin)[:16].
func (h *Home) Token(pin e2e.Pin) wire.Token {
	m := hmac.New(sha256.New, h.tokenKey)
	m.Write([]byte("blindrelay-tok/1\x00"))
	m.Write(pin[:])
	return wire.Token(m.Sum(nil)[:16])
}

// Tokens returns what the agent registers with relays: the tokens of the
// allowed devices and of the invites that are open now, at most
// [wire.MaxTokens]; none while remote access is off.
func (h *Home) Tokens() []wire.TokenHash {
	s, t := h.state.Load(), now()
	if !s.Enabled {
		return nil
	}
	all := make([]wire.TokenHash, 0, len(s.Devices)+len(s.Invites))
	for _, d := range s.Devices {
		all = append(all, h.Token(e2e.Pin(d.Pin)).Hash())
	}
	for _, v := range s.Invites {
		if t.Before(v.Expires) {
			all = append(all, wire.TokenHash(v.Token))
		}
	}
	return all
}
