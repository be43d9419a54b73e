package e2e

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// sessionLife is how long a session may last; after it the device makes a
	// new one, with new keys.
	sessionLife = 24 * time.Hour
	// maxTampered is how many manipulated streams end the whole session.
	maxTampered = 8
	// maxLinks is how many links a session has at once.
	maxLinks = 12
)

// errLinks is what the agent tells a device whose session has too many links.
var errLinks = errors.New("the session has as many links as it may have")

// session is what both endpoints keep of a session: its secret, its links and
// its open streams. It outlives every link, and ends when it has had none for
// a minute. It has one goroutine, keep; its links and carriers have two each.
type session struct {
	// Set at construction.
	suite      *suite
	secret     []byte
	id         [sessionIDLen]byte
	self, peer Pin
	since      time.Time
	proof      Proof
	log        *slog.Logger
	pool       *bufferPool
	stranger   func(id uint64) *Conn // what a CANCEL for an unknown stream means; nil at the device

	idle     atomic.Int64    // Welcome.Idle, ns
	bytesIn  atomic.Int64    // content of sealed streams
	bytesOut atomic.Int64    //
	arrived  atomic.Int64    // bytes of records that had not come before
	logged   atomic.Int64    // what all outboxes hold
	unread   atomic.Int64    // what all inboxes hold beyond a gap or readAhead
	told     atomic.Bool     // the other endpoint has heard the goodbye
	ended    atomic.Bool     // done is closed or about to be
	kick     chan struct{}   // wakes keep; one place, because there is one reader
	done     chan struct{}   // closed by end
	ctx      context.Context // ends with the session
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu        sync.Mutex
	err       error     // why it ended
	goodbye   *Frame    // what links say at the end; nil: nothing. Constant once err is set
	code      wire.Code // of the resets at the end. Constant once err is set
	conns     map[uint64]*Conn
	links     []*Link       // the newest last
	wide      []*Link       // what large streams are carried over, at the device
	layout    uint64        // counts the changes of wide
	preferred *Link         // the device's choice; at the agent that of the latest frame; nil: the newest
	pressed   time.Time     // when a stream could last have been faster, at the device
	linked    chan struct{} // closed and replaced when a link is added
	unlinked  chan struct{} // closed and replaced when a link is taken away
	bare      time.Time     // since when there is no link
	joins     int           // links so far
	dirty     map[*Conn]struct{}
	ackAt     time.Time // when those are due
	late      int       // streams that are over and whose first carrier never came
	tampered  int
}

// newSession makes a session of a complete handshake that both sides of this
// package have verified. device and server are the pins of the two.
func newSession(cs tls.ConnectionState, server, device Pin, pool *bufferPool, log *slog.Logger) (*session, error) {
	secret, err := export(cs, exporterStreams, server, device)
	if err != nil {
		return nil, err
	}
	proof, err := prove(secret, cs, server, device)
	if err != nil {
		return nil, err
	}
	s, err := makeSession(suiteOf(cs.CipherSuite), secret, pool, log)
	if err != nil {
		return nil, err
	}
	s.proof = proof
	s.proof.Since = s.since
	return s, nil
}

func makeSession(su *suite, secret []byte, pool *bufferPool, log *slog.Logger) (*session, error) {
	s := &session{
		suite: su, secret: secret, since: time.Now(), log: log, pool: pool, bare: time.Now(),
		kick: make(chan struct{}, 1), done: make(chan struct{}), linked: make(chan struct{}), unlinked: make(chan struct{}),
		conns: make(map[uint64]*Conn), dirty: make(map[*Conn]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.idle.Store(int64(defaultIdle))
	var err error
	s.id, err = sessionID(secret)
	return s, err
}

// link adds a link. The caller runs it.
func (s *session) link(l *Link) error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.ending()
	}
	if len(s.links) >= maxLinks {
		s.mu.Unlock()
		return errLinks
	}
	s.links = append(s.links, l)
	s.joins++
	if s.stranger != nil {
		s.preferred = l
	}
	close(s.linked)
	s.linked = make(chan struct{})
	s.mu.Unlock()
	for _, c := range s.open() { // what was said may have got lost
		c.sayAgain()
	}
	return nil
}

// unlink takes an ended link away, and its carriers with it.
func (s *session) unlink(l *Link) {
	s.mu.Lock()
	before := len(s.links)
	s.links = slices.DeleteFunc(s.links, func(o *Link) bool { return o == l })
	left := len(s.links)
	if left == 0 && before > left {
		s.bare = time.Now()
	}
	close(s.unlinked)
	s.unlinked = make(chan struct{})
	s.mu.Unlock()
	wake(s.kick)
	s.log.Debug("link ended", "endpoint", s.peer, "reason", l.reason())
	for _, c := range s.open() {
		c.loseLink(l)
		if left > 0 { // what was said on the lost link may not have arrived
			c.sayAgain()
		}
	}
}

// parted returns when an ended session has said its goodbyes, or at the
// timeout.
func (s *session) parted(timeout <-chan struct{}) {
	for {
		s.mu.Lock()
		left, unlinked := len(s.links), s.unlinked
		s.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-unlinked:
		case <-timeout:
			return
		}
	}
}

// current returns the link that is preferred if it works, or else the newest
// that does, or nil and what is closed when there may be one.
func (s *session) current() (*Link, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.preferred; l != nil && slices.Contains(s.links, l) && l.reason() == nil {
		return l, nil
	}
	for _, l := range slices.Backward(s.links) {
		select {
		case <-l.done:
		default:
			return l, nil
		}
	}
	return nil, s.linked
}

// hear notes at the agent over which link the device speaks: one that is dead
// may look alive for a while.
func (s *session) hear(l *Link) {
	if s.stranger == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.preferred = l
}

func (s *session) isLinked() bool {
	l, _ := s.current()
	return l != nil
}

// awaitLink returns a link, or nil when stop or the session's end comes first.
func (s *session) awaitLink(stop <-chan struct{}) *Link {
	for {
		l, linked := s.current()
		if l != nil {
			return l
		}
		select {
		case <-linked:
		case <-stop:
			return nil
		case <-s.done:
			return nil
		}
	}
}

// keep sends what is due, and ends the session when its time has come.
func (s *session) keep() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.kick:
		case <-t.C:
		}
		t.Reset(s.tend(time.Now()))
	}
}

// tend does what is due and returns when something will be.
func (s *session) tend(now time.Time) time.Duration {
	if age := now.Sub(s.since); age >= sessionLife {
		s.goAway(wire.CodeNone, "the session has reached its age limit")
		return sessionLife
	}
	wait := sessionLife - now.Sub(s.since)
	l, _ := s.current()
	if l == nil {
		s.mu.Lock()
		left := resumeWithin - now.Sub(s.bare)
		if len(s.links) > 0 { // about to be taken away
			left = resumeWithin
		}
		s.mu.Unlock()
		if left <= 0 {
			s.end(ErrSilent, nil, wire.CodeTimeout)
		}
		return min(wait, max(left, 0))
	}
	due, next := s.acks(now)
	s.sendAcks(l, due)
	return min(wait, next)
}

// unknown is the answer to a frame of a type that this side does not know.
func unknown(f Frame) error {
	if f.Type >= FrameOptional {
		return nil
	}
	return fmt.Errorf("%w: type 0x%02x", ErrFrame, f.Type)
}

// goAway ends the session from this side and tells the other one why. Streams
// are dead when it returns; the links end in the background.
func (s *session) goAway(code wire.Code, reason string) {
	s.end(&ClosedError{code, reason}, goAwayFrame(code, reason), code)
}

func goAwayFrame(code wire.Code, reason string) *Frame {
	p := binary.BigEndian.AppendUint16(nil, uint16(code))
	p = append(p, reason[:min(len(reason), maxReason)]...)
	return &Frame{Type: frameGoAway, Payload: p}
}

// end ends the session once: every stream fails with err. It does not wait for
// Reads and Writes that are about to return, because it may run inside one;
// quiesce waits.
func (s *session) end(err error, goodbye *Frame, code wire.Code) {
	if !code.FromEndpoint() {
		code = wire.CodeCancelled // what a relay lets through
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err, s.goodbye, s.code = err, goodbye, code
	s.ended.Store(true)
	links := slices.Clone(s.links)
	s.mu.Unlock()
	for _, l := range links {
		l.resetSoon()
	}
	s.killStreams()
	close(s.done)
	s.cancel()
	s.log.Info("session ended", "endpoint", s.peer, "reason", err)
}

// farewell is what links say and reset with at the end.
func (s *session) farewell() (*Frame, wire.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goodbye, s.code
}

// run starts goroutines of a session that has not ended, or says that it has.
func (s *session) run(fs ...func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false
	}
	for _, f := range fs {
		s.wg.Go(f)
	}
	return true
}

// add registers an open stream unless the session has ended or has max.
// Streams that were closed here and are still being delivered do not count.
func (s *session) add(c *Conn, max int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return fmt.Errorf("the session has ended: %w", s.err)
	}
	n := 0
	for _, o := range s.conns {
		if !o.closed.Load() {
			n++
		}
	}
	if n >= max || len(s.conns) >= maxJoinStreams {
		return ErrTooManyStreams
	}
	s.conns[c.name.id] = c
	return nil
}

// remove forgets a stream that no Read or Write runs on. late says that its
// first carrier never came. The streams of an ended session stay, for quiesce.
func (s *session) remove(c *Conn, late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	delete(s.conns, c.name.id)
	if late {
		s.late++
	}
}

// lateFirst reports whether a first carrier may have been overtaken by a
// further one and by the end of its stream, and takes note that it was.
func (s *session) lateFirst() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late == 0 {
		return false
	}
	s.late--
	return true
}

// conn returns a stream by its number, or nil.
func (s *session) conn(id uint64) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[id]
}

// joined reports whether the session has had more than one link.
func (s *session) joined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.joins > 1
}

// cancelled ends a stream that the other endpoint says is over. An orderly end
// says that it has no more of the stream: whether that was all is known here.
func (s *session) cancelled(id uint64, code wire.Code) {
	c := s.conn(id)
	if c == nil && s.stranger != nil {
		c = s.stranger(id)
	}
	if c == nil {
		return
	}
	c.leave(code)
}

// cancelLater tells the other endpoint that a stream is over. Without a link it
// is not told: on the next one the device says which streams it has, and the
// agent knows those that are over when a carrier for one comes.
func (s *session) cancelLater(id uint64, code wire.Code) {
	if l, _ := s.current(); l != nil && !s.ended.Load() {
		l.say(cancelFrame(id, code))
	}
}

// wakeWriters wakes all who wait for room in the session's log.
func (s *session) wakeWriters() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		wake(c.writable)
	}
}

// killStreams makes every stream of an ended session fail.
func (s *session) killStreams() {
	err := s.ending()
	_, code := s.farewell()
	for _, c := range s.open() {
		c.kill(err, code)
	}
}

// quiesce returns when every stream of an ended session is dead and no Read or
// Write runs any more. The goroutine that ended the session may still be on
// its way through them.
func (s *session) quiesce() {
	s.killStreams()
	for _, c := range s.open() {
		c.quiesce()
	}
}

// ending is what streams of an ended session fail with.
func (s *session) ending() error { return fmt.Errorf("the session has ended: %w", s.reason()) }

// open returns the streams that are open now.
func (s *session) open() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*Conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// attacked counts a manipulated stream. Too many end the session.
func (s *session) attacked(err error) {
	s.mu.Lock()
	s.tampered++
	n := s.tampered
	s.mu.Unlock()
	s.log.Warn("sealed stream refused", "endpoint", s.peer, "reason", err)
	if n == maxTampered {
		s.goAway(wire.CodeTampered, ErrTampered.Error())
	}
}
