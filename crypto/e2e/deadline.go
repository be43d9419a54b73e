package e2e

import (
	"sync"
	"time"
)

// deadline is a time that can be moved while somebody waits for it.
type deadline struct {
	mu     sync.Mutex
	at     time.Time
	timer  *time.Timer
	passed chan struct{} // closed when the time has come; replaced when it moves on
}

// set moves the deadline; the zero time is never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.over() || d.passed == nil {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		close(d.passed)
		return
	}
	d.timer = time.AfterFunc(wait, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.at == t && !d.over() {
			close(d.passed)
		}
	})
}

// done is closed once the time has come. Who waits on it also notices a
// deadline that is moved later.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}

// passedBy reports whether the time has come.
func (d *deadline) passedBy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over()
}

// over needs mu.
func (d *deadline) over() bool {
	select {
	case <-d.passed: // nil blocks for ever
		return true
	default:
		return false
	}
}
