package endpoint

import "sync"

// signal tells any number of waiters that something has changed. The zero
// signal is ready. Take next first, then look, then wait.
type signal struct {
	mu sync.Mutex
	c  chan struct{} // closed by broadcast; nil while nobody waits
}

// next returns a channel that is closed at the next broadcast.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
