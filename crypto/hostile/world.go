package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/blindrelay/blindrelay/crypto/e2e"
	"github.com/blindrelay/blindrelay/transport/wire"
)

const (
	// patience is how long an endpoint waits for an answer that never comes.
	patience = 5 * time.Second
	// watchdog is when a conversation has plainly hung.
	watchdog = 40 * time.Second
	// chunks is how many DATA records each half of a stream has; the record
	// after them is END.
	chunks = 5
	// attempts is how often an endpoint tries to come back, and retryAfter how
	// long it waits in between.
	attempts   = 4
	retryAfter = 200 * time.Millisecond
)

// world is a hostile relay with real endpoints around it, and what their
// applications see.
type world struct {
	rnd     *rand.Rand
	relay   *relay
	ctx     context.Context // ends with close
	stop    context.CancelFunc
	homes   []*home
	devices []*device
	wg      sync.WaitGroup
	readFor time.Duration // deadline of each application's reads

	mu       sync.Mutex
	survived string        // the first thing that must never happen
	agentErr error         // the first thing that an application at home was told
	hopErr   error         // the first reason for which an endpoint left the relay
	incoming error         // the first reason for which an agent refused a stream
	left     chan struct{} // closed when it is known
	served   map[[2]byte]bool
	over     bool
	busy     int // applications at home
	calm     *sync.Cond
}

func newWorld(rnd *rand.Rand) *world {
	w := &world{rnd: rnd, relay: newRelay(), readFor: watchdog, served: make(map[[2]byte]bool), left: make(chan struct{})}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.calm = sync.NewCond(&w.mu)
	return w
}

// survive notes that an attack had an effect that it must not have.
func (w *world) survive(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.survived == "" {
		w.survived = fmt.Sprintf(format, args...)
	}
}

// told notes the first error of an application at home.
func (w *world) told(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.agentErr == nil && !w.over {
		w.agentErr = err
	}
}

// refuses notes the first reason for which an agent refused a stream that the
// relay brought.
func (w *world) refuses(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.incoming == nil && !w.over {
		w.incoming = err
	}
}

// leaves notes the first reason for which an endpoint left the relay.
func (w *world) leaves(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hopErr == nil && !w.over {
		w.hopErr = err
		close(w.left)
	}
}

// count counts an application at home in or out.
func (w *world) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy += n
	w.calm.Broadcast()
}

// settle waits until the applications at home have nothing more to do, or for
// as long as they may have.
func (w *world) settle() {
	late := false
	w.mu.Lock()
	defer w.mu.Unlock()
	t := time.AfterFunc(patience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		late = true
		w.calm.Broadcast()
	})
	defer t.Stop()
	for w.busy > 0 && !late {
		w.calm.Wait()
	}
}

// close ends everything.
func (w *world) close() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range w.devices {
		if d.session != nil {
			wg.Go(func() { d.session.Close(wire.CodeNone, "") })
		}
	}
	wg.Wait()
	for _, h := range w.homes {
		wg.Go(func() { h.server.Close() })
	}
	wg.Wait()
	w.stop()
	w.relay.close()
	w.wg.Wait()
}

func newIdentity() *e2e.Identity {
	_, key, err := ed25519.GenerateKey(nil)
	if err == nil {
		var id *e2e.Identity
		if id, err = e2e.NewIdentity(key); err == nil {
			return id
		}
	}
	panic(err) // only a broken random generator gets here
}

// content is what a device asks, or is answered, on one stream.
func (w *world) content(name [2]byte, up bool) []byte {
	var seed [32]byte
	copy(seed[:], name[:])
	if up {
		seed[2] = 1
	}
	r := rand.New(rand.NewChaCha8(seed))
	b := make([]byte, chunks*(700+r.IntN(1500)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if up {
		copy(b, name[:])
	}
	return b
}

// write writes a half in as many records as it has chunks, and its end.
func (w *world) write(c *e2e.Conn, name [2]byte, up bool) error {
	b := w.content(name, up)
	for i := range chunks {
		if _, err := c.Write(b[i*len(b)/chunks : (i+1)*len(b)/chunks]); err != nil {
			return err
		}
	}
	return c.CloseWrite()
}

// check reads a half and compares it with what was written. It returns nil
// after all of it and a clean end, and the reader's error otherwise. Anything
// else is a success of the relay's.
func (w *world) check(r io.Reader, want []byte, reader string) error {
	p := make([]byte, 1000)
	for got := 0; ; {
		n, err := r.Read(p)
		if n > len(want)-got || !bytes.Equal(p[:n], want[got:got+n]) {
			w.survive("%s read bytes that nobody wrote there", reader)
			return errors.New("wrong bytes")
		}
		got += n
		switch {
		case err == io.EOF && got < len(want):
			w.survive("%s read a clean end after %d of %d bytes", reader, got, len(want))
			return errors.New("cut short")
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// together runs conversations beside each other and returns the first error in
// their order.
func together(fs ...func() error) (err error) {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	for _, e := range errs {
		if err == nil {
			err = e
		}
	}
	return err
}

func isDeadline(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, net.ErrClosed)
}
