package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// Bounds of a Server. What exceeds one is reset with wire.CodeBusy.
const (
	maxArrivals         = 512 // streams that no session has taken yet, in all
	maxHandshakes       = 32  // in all
	maxPerAttachment    = 4   // links and handshakes of one attachment
	maxParked           = 16  // streams of one attachment that wait for its handshake
	maxPairings         = 8   // in all
	maxSessions         = 1024
	maxSessionsOfDevice = 16  // one more ends the oldest
	acceptQueue         = 256 // streams that Accept has not returned yet
)

// pairingTimeout bounds a pairing conversation, in which people may have to
// compare words.
const pairingTimeout = 5 * time.Minute

// ServerConfig is an agent's side of its sessions.
type ServerConfig struct {
	// Identity is required.
	Identity *Identity
	// Admit, required, looks a device up. It is called for every session and
	// for every stream; any error refuses. It must not call the Server.
	Admit func(device Pin) (Welcome, error)
	// Pair holds one pairing conversation. It must return when ctx ends; the
	// connection fails then too, and is closed when Pair has returned. nil:
	// nobody can pair.
	Pair func(ctx context.Context, c *PairingConn)
	// Log: nil: nothing is logged.
	Log *slog.Logger
}

// Server tells the sessions of an agent's devices apart and hands out their
// sealed streams. It must be closed.
//
// Handle starts one goroutine for each stream. It ends when the stream has
// become a Conn, or another carrier of one, or was refused; that of a link
// stays, with a second one that reads, and that of a pairing conversation runs
// Pair. Each session has one more, and two for each carrier of its streams.
type Server struct {
	// Set at construction.
	cfg    ServerConfig
	tls    *tls.Config
	pool   *bufferPool
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // Handle's goroutines
	// accepted is sent to by Handle's goroutines, without blocking, and never
	// closed; its capacity is what a slow Accept may leave waiting.
	accepted chan *Conn

	mu          sync.Mutex
	closed      bool
	arrivals    int
	handshakes  int
	pairings    int
	attachments map[uint64]*attachment
	sessions    map[*served]struct{}
}

// served is a session at the agent.
type served struct {
	*session
	maxStreams atomic.Int64
	opening    sync.Mutex // held while a stream is made
	seen       window     // stream numbers; guarded by opening
	forgone    window     // those that were over before they began; likewise
}

// servedLink is a link of a session at the agent.
type servedLink struct {
	*Link
	session *served
}

// attachment is a device's connection to the relay, as the relay names it. An
// entry exists while it has a link or a handshake. Server.mu guards it.
type attachment struct {
	handshakes int
	parked     int
	links      []servedLink
	changed    chan struct{} // closed and replaced when a handshake has ended
}

// SessionInfo describes a live session.
type SessionInfo struct {
	Device   Pin
	Since    time.Time
	Streams  int   // open now
	BytesIn  int64 // content from the device so far
	BytesOut int64 // content to the device so far
}

// NewServer makes a Server. The error says what the configuration lacks.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Identity == nil || cfg.Admit == nil {
		return nil, errors.New("an end-to-end server needs ServerConfig.Identity and ServerConfig.Admit")
	}
	cfg.Log = logOr(cfg.Log)
	alpn := []string{alpnSession, alpnJoin}
	if cfg.Pair != nil {
		alpn = append(alpn, alpnPairing)
	}
	s := &Server{
		cfg:         cfg,
		tls:         serverTLS(cfg.Identity, alpn...),
		pool:        newBufferPool(),
		accepted:    make(chan *Conn, acceptQueue),
		attachments: make(map[uint64]*attachment),
		sessions:    make(map[*served]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Accept returns the next sealed stream of an admitted device. The error is
// net.ErrClosed after Close.
func (s *Server) Accept() (*Conn, error) {
	for {
		select {
		case <-s.ctx.Done():
			return nil, net.ErrClosed
		case c := <-s.accepted:
			if c.dead.Load() == nil {
				return c, nil
			}
			c.Close()
		}
	}
}

// Revoke ends every session of a device. When it returns, no byte is handed
// out or accepted for the device any more, and the device has been told or has
// not answered for a second. Admit must refuse the device before Revoke is
// called.
func (s *Server) Revoke(device Pin) {
	s.endSessions(func(v *served) bool { return v.peer == device }, wire.CodeRefused, "the owner of the server has revoked this device")
}

// CloseSessions ends every session and tells the devices code and reason, as
// Revoke does. When it returns, no byte is handed out or accepted for the
// sessions that were there. The Server goes on: to keep devices away, Admit has to refuse them.
func (s *Server) CloseSessions(code wire.Code, reason string) {
	s.endSessions(func(*served) bool { return true }, code, reason)
}

func (s *Server) endSessions(which func(*served) bool, code wire.Code, reason string) {
	var ending []*served
	s.mu.Lock()
	for v := range s.sessions {
		if which(v) {
			ending = append(ending, v)
		}
	}
	s.mu.Unlock()
	for _, v := range ending {
		v.goAway(code, reason)
	}
	for _, v := range ending {
		v.quiesce()
	}
	// The caller may close the relay connections next, and with them drop what
	// the devices have not been told yet.
	ctx, cancel := context.WithTimeout(context.Background(), farewellTimeout)
	defer cancel()
	for _, v := range ending {
		v.parted(ctx.Done())
	}
}

// Sessions describes the live sessions, the oldest first.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make([]SessionInfo, 0, len(s.sessions))
	for v := range s.sessions {
		if v.ended.Load() {
			continue
		}
		infos = append(infos, SessionInfo{
			Device: v.peer, Since: v.since, Streams: len(v.open()),
			BytesIn: v.bytesIn.Load(), BytesOut: v.bytesOut.Load(),
		})
	}
	slices.SortFunc(infos, func(a, b SessionInfo) int { return a.Since.Compare(b.Since) })
	return infos
}

// Close ends everything: arriving streams are reset, devices are told, and
// nothing of the Server runs when it returns, which takes about a second at
// most, plus what Pair takes to return.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.CloseSessions(wire.CodeCancelled, "the server's agent is shutting down")
	s.wg.Wait()
	for {
		select {
		case c := <-s.accepted:
			c.Close()
		default:
			return nil
		}
	}
}

// attached returns the entry of an attachment, which it makes if need be.
// Needs mu.
func (s *Server) attached(id uint64) *attachment {
	a := s.attachments[id]
	if a == nil {
		a = &attachment{changed: make(chan struct{})}
		s.attachments[id] = a
	}
	return a
}

// tidy drops an entry that nothing needs any more. Needs mu.
func (s *Server) tidy(id uint64, a *attachment) {
	if a.handshakes == 0 && len(a.links) == 0 {
		delete(s.attachments, id)
	}
}

// beginHandshake takes a place for a handshake, or says that there is none.
func (s *Server) beginHandshake(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attached(id)
	if s.handshakes >= maxHandshakes || a.handshakes+len(a.links) >= maxPerAttachment {
		s.tidy(id, a)
		return false
	}
	s.handshakes++
	a.handshakes++
	return true
}

// endHandshake gives the place back and wakes the streams that wait for it.
// They see the link that came of it, the zero one if none did.
func (s *Server) endHandshake(id uint64, l servedLink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attachments[id]
	s.handshakes--
	a.handshakes--
	if l.Link != nil {
		a.links = append(a.links, l)
	}
	close(a.changed)
	a.changed = make(chan struct{})
	s.tidy(id, a)
}

// register makes a session known to Revoke and CloseSessions. A device that
// has too many, because a network that it left did not say so, loses the oldest,
// one without a link before all others.
func (s *Server) register(v *served) error {
	s.mu.Lock()
	if s.closed || len(s.sessions) >= maxSessions {
		s.mu.Unlock()
		return errBusy
	}
	var same []*served
	for o := range s.sessions {
		if o.peer == v.peer && !o.ended.Load() {
			same = append(same, o)
		}
	}
	s.sessions[v] = struct{}{}
	s.mu.Unlock()
	if len(same) >= maxSessionsOfDevice {
		oldest := slices.MinFunc(same, func(a, b *served) int {
			if x, y := a.isLinked(), b.isLinked(); x != y {
				if y {
					return -1
				}
				return 1
			}
			return a.since.Compare(b.since)
		})
		oldest.goAway(wire.CodeBusy, "this device has too many sessions; its oldest was ended")
	}
	return nil
}

// forget removes an ended session.
func (s *Server) forget(v *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, v)
}

// forgetLink removes an ended link.
func (s *Server) forgetLink(id uint64, l servedLink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.attachments[id]; a != nil {
		a.links = slices.DeleteFunc(a.links, func(o servedLink) bool { return o == l })
		s.tidy(id, a)
	}
}

// session returns the session that a device names.
func (s *Server) session(id [sessionIDLen]byte, device Pin) *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.sessions {
		if v.session.id == id && v.peer == device && !v.ended.Load() {
			return v
		}
	}
	return nil
}
