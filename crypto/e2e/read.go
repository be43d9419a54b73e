package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// maxFruitless is how often a hop may return neither bytes nor an error.
const maxFruitless = 100

// reader is the read half of a sealed stream: it turns the bytes of the hop
// into verified content. Conn.rmu guards it.
type reader struct {
	st       io.Reader
	pool     *bufferPool
	half     *half                               // nil before the preface
	start    func(preface []byte) (*half, error) // verifies the preface; at the opener only
	awaitFIN func()                              // bounds the read that waits for the FIN

	buf     *buffer // nil when nothing is in it
	i, j    int     // buf[i:j] was read and not opened yet
	content []byte  // opened and not yet read; inside buf
	hopErr  error   // came together with the last bytes
	err     error   // sticky
	ended   bool    // END was verified
	empty   int     // empty DATA records in a row
}

// read reads at least one byte of content or returns an error.
func (r *reader) read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(r.content) > 0 {
			n := copy(p, r.content)
			r.content = r.content[n:]
			r.tidy()
			return n, nil
		}
		n, more, err := r.next(p)
		if n > 0 {
			r.tidy()
			return n, nil
		}
		if err == nil && more {
			err = r.fill()
		}
		if err != nil {
			if !isTimeout(err) {
				r.fail(err)
			}
			r.tidy()
			return 0, err
		}
	}
}

// next opens the first record in the buffer, straight into p if that is large
// enough. more says that it is not there as a whole.
func (r *reader) next(p []byte) (n int, more bool, err error) {
	b := r.unopened()
	if r.half == nil {
		if len(b) < acceptPrefaceLen {
			return 0, true, nil
		}
		if r.half, err = r.start(b[:acceptPrefaceLen]); err != nil {
			return 0, false, err
		}
		r.i += acceptPrefaceLen
		return 0, false, nil
	}
	if r.ended {
		if len(b) > 0 {
			return 0, false, ErrTrailing
		}
		return 0, true, nil
	}
	size, err := r.half.recordLen(b)
	if err != nil {
		return 0, false, err
	}
	if size == 0 || len(b) < size {
		return 0, true, nil
	}
	rec := b[:size]
	dst, direct := rec[recordHeaderLen:], false
	if inner := size - recordHeaderLen - tagLen; len(p) >= inner {
		dst, direct = p, true
	}
	kind, content, err := r.half.open(dst, rec)
	if err != nil {
		return 0, false, err
	}
	r.i += size
	if err := r.account(kind, len(content)); err != nil {
		return 0, false, err
	}
	if direct {
		return len(content), false, nil
	}
	r.content = content
	return 0, false, nil
}

// account notes what a verified record says about the half.
func (r *reader) account(kind byte, n int) error {
	switch {
	case kind == recordEnd:
		r.ended = true
	case n > 0:
		r.empty = 0
	default:
		if r.empty++; r.empty > maxEmpty {
			return errEmptyRecords
		}
	}
	return nil
}

// fill reads from the hop once, as much as there is and has room.
func (r *reader) fill() error {
	if r.hopErr != nil {
		return r.ending(r.hopErr)
	}
	if r.buf == nil {
		r.buf = r.pool.get()
	}
	if r.i > 0 {
		r.j = copy(r.buf[:], r.unopened())
		r.i = 0
	}
	if r.ended {
		r.awaitFIN()
	}
	for range maxFruitless {
		n, err := r.st.Read(r.buf[r.j:])
		if n > 0 {
			r.j += n
			if err != nil && !isTimeout(err) {
				r.hopErr = err
			}
			return nil
		}
		if err != nil {
			return r.ending(err)
		}
	}
	return io.ErrNoProgress
}

// ending says what the end of the hop stream means here.
func (r *reader) ending(err error) error {
	switch {
	case err == io.EOF && r.ended && r.i == r.j:
		return io.EOF
	case err == io.EOF:
		return ErrTruncated
	case isTimeout(err):
		return err
	}
	return fmt.Errorf("read a sealed stream: %w", err)
}

func (r *reader) unopened() []byte {
	if r.buf == nil {
		return nil
	}
	return r.buf[r.i:r.j]
}

// tidy returns the buffer to the pool if nothing is in it.
func (r *reader) tidy() {
	if r.buf != nil && r.i == r.j && len(r.content) == 0 {
		r.drop()
	}
}

// fail makes err sticky.
func (r *reader) fail(err error) { r.err = err }

// release gives up a half that will not be read any more.
func (r *reader) release() {
	if r.err == nil {
		r.err = net.ErrClosed
	}
	if r.buf != nil {
		r.drop()
	}
}

func (r *reader) drop() {
	r.pool.put(r.buf)
	r.buf, r.i, r.j, r.content = nil, 0, 0, nil
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func isTampered(err error) bool { return errors.Is(err, ErrTampered) }
