package e2e

import (
	"fmt"
	"io"
)

// maxFruitless is how often a hop may return neither bytes nor an error.
const maxFruitless = 100

// recordReader finds the records in what a hop brings. It holds a buffer only
// while part of a record is in it.
type recordReader struct {
	st   io.Reader
	pool *bufferPool
	head [recordHeaderLen]byte
	buf  *buffer
	i, j int // buf[i:j] was read and not used
	size int // of the record at i
}

// record returns the next whole record, valid until next. The error is io.EOF
// if the hop ended between two records.
func (r *recordReader) record() ([]byte, error) {
	if err := r.need(recordHeaderLen); err != nil {
		return nil, err
	}
	_, size, err := recordHeader(r.buf[r.i:])
	if err != nil {
		return nil, err
	}
	if err := r.need(size); err != nil {
		if err == io.EOF {
			err = ErrTruncated
		}
		return nil, err
	}
	r.size = size
	return r.buf[r.i : r.i+size], nil
}

// next leaves the record behind.
func (r *recordReader) next() {
	if r.i += r.size; r.i == r.j {
		r.release()
	}
}

// need reads until n bytes are there.
func (r *recordReader) need(n int) error {
	if r.buf == nil {
		// Whoever waits for a record that may not come for an hour waits
		// without a buffer.
		k, err := readSome(r.st, r.head[:])
		if err != nil {
			return err
		}
		r.buf = r.pool.get()
		r.i, r.j = 0, copy(r.buf[:], r.head[:k])
	}
	if r.j-r.i < n && r.i+n > bufferLen {
		r.j = copy(r.buf[:], r.buf[r.i:r.j])
		r.i = 0
	}
	for r.j-r.i < n {
		k, err := readSome(r.st, r.buf[r.j:])
		if err != nil {
			if err == io.EOF && r.j > r.i {
				err = ErrTruncated
			}
			return err
		}
		r.j += k
	}
	return nil
}

func (r *recordReader) release() {
	if r.buf != nil {
		r.pool.put(r.buf)
		r.buf, r.i, r.j = nil, 0, 0
	}
}

// readSome reads at least one byte or returns an error. An error that comes
// with bytes comes again.
func readSome(st io.Reader, p []byte) (int, error) {
	for range maxFruitless {
		n, err := st.Read(p)
		if n > 0 {
			return n, nil
		}
		if err == io.EOF {
			return 0, err
		}
		if err != nil {
			return 0, fmt.Errorf("read a sealed stream: %w", err)
		}
	}
	return 0, io.ErrNoProgress
}
