package pair

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	awayName    = "away.json"
	deviceName  = "device.key"
	awayVersion = 1
	// maxServers is how many servers a device may be paired with.
	maxServers = 100
	// awayWait is how long a change waits for another process's change.
	awayWait = 10 * time.Second
)

// Away is the state of a device: its key and the servers it is paired with.
// Several processes may use one directory; each method reads the file anew,
// and changes lock the directory for a moment. Its methods are safe for
// concurrent use.
type Away struct {
	dir      *dir
	identity crypto.Signer
}

// Server is a server that this device is paired with.
type Server struct {
	Name   string       // what this device calls it; unique; 1 to 64 bytes of printable text
	Pin    e2e.Pin      // the server's identity
	Route  wire.Route   // its name on relays
	Device string       // what the server calls this device
	Token  wire.Token   // what this device shows relays
	Relays []wire.Relay // 1 to 3, in the order to try
	Paired time.Time
}

// String names the server without its token.
func (s Server) String() string { return s.Name }

// GoString is String, so that no format shows the token.
func (s Server) GoString() string { return s.String() }

// OpenAway opens the device's state directory and makes it on first start. It
// refuses what [OpenHome] refuses. The caller closes the Away.
func OpenAway(path string) (*Away, error) {
	d, err := openDir(path)
	if err != nil {
		return nil, err
	}
	a := &Away{dir: d}
	if err := a.load(); err != nil {
		d.root.Close()
		return nil, fmt.Errorf("open the device's state: %w", err)
	}
	return a, nil
}

func (a *Away) load() error {
	lock, err := a.dir.lock(awayWait)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := a.read()
	if errors.Is(err, fs.ErrNotExist) {
		if err := a.dir.unmade(awayName, deviceName); err != nil {
			return err
		}
		s = &awayState{Version: awayVersion}
		err = a.write(s)
	}
	if err != nil {
		return err
	}
	if s.Generation == 0 {
		if err := a.dir.createKey(deviceName); err != nil {
			return err
		}
		s.Generation++
		if err := a.write(s); err != nil {
			return err
		}
	}
	a.identity, err = a.dir.loadKey(deviceName)
	return err
}

// Close gives the directory free.
func (a *Away) Close() error { return a.dir.root.Close() }

// Identity returns the key that servers know this device by. Relays never see it.
func (a *Away) Identity() crypto.Signer { return a.identity }

// Servers returns the paired servers in the order in which they were added.
func (a *Away) Servers() ([]Server, error) {
	s, err := a.read()
	if err != nil {
		return nil, fmt.Errorf("read the device's state: %w", err)
	}
	all := make([]Server, len(s.Servers))
	for i, v := range s.Servers {
		all[i] = v.server()
	}
	return all, nil
}

// Find returns the server with this name, or with an empty name the only one.
func (a *Away) Find(name string) (Server, error) {
	all, err := a.Servers()
	switch {
	case err != nil:
		return Server{}, err
	case len(all) == 0:
		return Server{}, errors.New("this device is not paired with a server: run `blindlink open INVITE` with an invite from home")
	case name == "" && len(all) == 1:
		return all[0], nil
	}
	names := make([]string, len(all))
	for i, s := range all {
		if sameName(s.Name, name) {
			return s, nil
		}
		names[i] = fmt.Sprintf("%q", s.Name)
	}
	if name == "" {
		return Server{}, fmt.Errorf("this device is paired with several servers, name one of %s", strings.Join(names, ", "))
	}
	return Server{}, fmt.Errorf("no server is named %q here, there is %s", name, strings.Join(names, ", "))
}

// Add stores a server, as [Request] returned it or with news from the server
// itself. A server whose pin is stored already keeps its name and place; a
// name that another server has gets a number behind it. Add returns what it
// stored.
func (a *Away) Add(srv Server) (Server, error) {
	if err := errors.Join(checkName(srv.Name), checkName(srv.Device), checkRelays(srv.Relays)); err != nil {
		return Server{}, fmt.Errorf("store the server: %w", err)
	}
	err := a.update(func(s *awayState) error {
		i := slices.IndexFunc(s.Servers, func(v savedServer) bool { return v.Pin == pinText(srv.Pin) })
		if i >= 0 {
			srv.Name = s.Servers[i].Name
			s.Servers[i] = saved(srv)
			return nil
		}
		if len(s.Servers) >= maxServers {
			return fmt.Errorf("%d servers are stored, no more are possible", maxServers)
		}
		srv.Name = uniqueName(srv.Name, func(n string) bool { return s.index(n) >= 0 })
		s.Servers = append(s.Servers, saved(srv))
		return nil
	})
	if err != nil {
		return Server{}, fmt.Errorf("store the server: %w", err)
	}
	return srv, nil
}

// Remove forgets a server. The server still lists this device until its owner
// revokes it.
func (a *Away) Remove(name string) error {
	return a.update(func(s *awayState) error {
		i := s.index(name)
		if i < 0 {
			return fmt.Errorf("no server is named %q here", name)
		}
		s.Servers = slices.Delete(s.Servers, i, i+1)
		return nil
	})
}

func (a *Away) update(change func(*awayState) error) error {
	lock, err := a.dir.lock(awayWait)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := a.read()
	if err != nil {
		return err
	}
	if err := change(s); err != nil {
		return err
	}
	s.Generation++
	return a.write(s)
}

func (a *Away) write(s *awayState) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	_, err = a.dir.write(awayName, append(b, '\n'))
	return err
}

func (a *Away) read() (*awayState, error) {
	b, err := a.dir.read(awayName, maxState)
	if err != nil {
		return nil, err
	}
	s, err := parseAway(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or remove the directory and pair again", a.dir.file(awayName), err)
	}
	return s, nil
}

// awayState is what away.json holds.
type awayState struct {
	Version    int           `json:"version"`
	Generation uint64        `json:"generation"` // as in homeState
	Servers    []savedServer `json:"servers"`
}

type savedServer struct {
	Name   string       `json:"name"`
	Pin    pinText      `json:"pin"`
	Route  string       `json:"route"`
	Device string       `json:"device"`
	Token  []byte       `json:"token"`
	Relays []wire.Relay `json:"relays"`
	Paired time.Time    `json:"paired"`
}

func saved(s Server) savedServer {
	return savedServer{s.Name, pinText(s.Pin), s.Route.String(), s.Device, s.Token[:], s.Relays, s.Paired}
}

// server converts what parseAway has checked.
func (v savedServer) server() Server {
	route, _ := wire.ParseRoute(v.Route)
	return Server{v.Name, e2e.Pin(v.Pin), route, v.Device, wire.Token(v.Token), v.Relays, v.Paired}
}

func (s *awayState) index(name string) int {
	return slices.IndexFunc(s.Servers, func(v savedServer) bool { return sameName(v.Name, name) })
}

func parseAway(b []byte) (*awayState, error) {
	s := new(awayState)
	if err := decodeState(b, awayVersion, s); err != nil {
		return nil, err
	}
	if s.Generation == 0 && len(s.Servers) > 0 {
		return nil, errors.New("it has no generation, yet it lists something")
	}
	if len(s.Servers) > maxServers {
		return nil, fmt.Errorf("it lists %d servers, at most %d are possible", len(s.Servers), maxServers)
	}
	pins := map[pinText]bool{}
	for i, v := range s.Servers {
		_, err := wire.ParseRoute(v.Route)
		if err := errors.Join(checkName(v.Name), checkName(v.Device), err, checkRelays(v.Relays)); err != nil {
			return nil, fmt.Errorf("server %d: %w", i+1, err)
		}
		if len(v.Token) != len(wire.Token{}) {
			return nil, fmt.Errorf("server %q: its token has %d bytes, not %d", v.Name, len(v.Token), len(wire.Token{}))
		}
		if pins[v.Pin] || s.index(v.Name) != i {
			return nil, fmt.Errorf("the server %q or its pin stands there twice", v.Name)
		}
		pins[v.Pin] = true
	}
	return s, nil
}
