package e2e

import (
	"errors"
	"fmt"
)

// errWriteEnded is what a Write after CloseWrite returns.
var errWriteEnded = errors.New("write to a sealed stream after its end")

// writer is the write half of a sealed stream. Conn.wmu guards it.
type writer struct {
	st      Stream
	pool    *bufferPool
	half    *half
	preface []byte // goes out before the first record; nil afterwards
	err     error  // sticky
}

// write seals p and writes it to the hop. n counts the content of the hop's
// Writes that succeeded.
func (w *writer) write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	if len(p) == 0 && w.preface == nil {
		return 0, nil
	}
	buf := w.pool.get()
	defer w.pool.put(buf)
	for {
		b := append(buf[:0], w.preface...)
		took := 0
		for {
			content := p[took:min(len(p), took+maxContent)]
			padding := w.padding(len(content))
			if len(b)+recordOverhead+len(content)+padding > len(buf) {
				break
			}
			if b, err = w.half.seal(b, recordData, content, padding); err != nil {
				return n, w.fail(err)
			}
			if took += len(content); took == len(p) {
				break
			}
		}
		if err := w.flush(b); err != nil {
			return n, err
		}
		n += took
		if p = p[took:]; len(p) == 0 {
			return n, nil
		}
	}
}

// end writes the END record and the FIN, once.
func (w *writer) end() error {
	if w.err != nil {
		if w.err == errWriteEnded {
			return nil
		}
		return w.err
	}
	buf := w.pool.get()
	defer w.pool.put(buf)
	b, err := w.half.seal(append(buf[:0], w.preface...), recordEnd, nil, w.padding(0))
	if err != nil {
		return w.fail(err)
	}
	if err := w.flush(b); err != nil {
		return err
	}
	w.err = errWriteEnded
	if err := w.st.CloseWrite(); err != nil {
		return w.fail(err)
	}
	return nil
}

func (w *writer) padding(content int) int {
	if w.half.seq > 0 {
		return 0
	}
	return firstPadding(content)
}

// flush hands sealed bytes to the hop. Whatever goes wrong, sealing the same
// place in the stream again is out of the question: it would use a nonce twice.
func (w *writer) flush(b []byte) error {
	w.preface = nil
	if _, err := w.st.Write(b); err != nil {
		return w.fail(err)
	}
	return nil
}

func (w *writer) fail(err error) error {
	w.err = fmt.Errorf("write to a sealed stream: %w", err)
	return w.err
}
