package e2e

import (
	"errors"
	"io"
	"sync"

	"github.com/blindrelay/blindrelay/transport/wire"
)

// forward is a relay: it carries both halves of a hop on, through what up and
// down make of the bytes, and passes ends faithfully. It returns when both
// halves have ended.
func forward(device, agent Stream, up, down func([]byte) []byte) {
	var wg sync.WaitGroup
	wg.Go(func() { pump(agent, device, up) })
	wg.Go(func() { pump(device, agent, down) })
	wg.Wait()
}

func pump(to, from Stream, change func([]byte) []byte) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		b := buf[:n]
		if change != nil {
			b = change(b)
		}
		if len(b) > 0 && err == nil {
			_, err = to.Write(b)
		}
		if err == nil {
			continue
		}
		var reset *wire.ResetError
		switch {
		case err == io.EOF:
			to.CloseWrite()
		case errors.As(err, &reset) && reset.Code == wire.CodeNone:
			from.StopRead()
		case errors.As(err, &reset):
			to.Reset(reset.Code)
			from.Reset(reset.Code)
		}
		return
	}
}

// flipAt returns a change that flips bits of the byte at an offset.
func flipAt(offset int, mask byte) func([]byte) []byte {
	pos := 0
	return func(b []byte) []byte {
		if i := offset - pos; i >= 0 && i < len(b) {
			b[i] ^= mask
		}
		pos += len(b)
		return b
	}
}

// cutAt returns a change that lets only the first n bytes through, and then
// calls then once.
func cutAt(n int, then func()) func([]byte) []byte {
	var once sync.Once
	return func(b []byte) []byte {
		k := min(n, len(b))
		n -= k
		if n == 0 && k < len(b) {
			once.Do(then)
		}
		return b[:k]
	}
}
