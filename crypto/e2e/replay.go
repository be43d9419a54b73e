package e2e

import "math"

const windowLen = 4096 // stream numbers

// window remembers which of the newest stream numbers were used, as RFC 6479
// does for packets: a ring of bits, where older numbers than the window count
// as used. Only authenticated numbers may reach it.
type window struct {
	next uint64 // one more than the highest number seen
	bits [windowLen / 64]uint64
}

// use reports whether id is new, and marks it as used.
func (w *window) use(id uint64) bool {
	if id >= w.next {
		gap := min(id-w.next, windowLen)
		for i := range gap {
			w.clear(w.next + i)
		}
		w.next = id + 1
	} else if w.next-id > windowLen {
		return false
	} else if w.bits[id%windowLen/64]&(1<<(id%64)) != 0 {
		return false
	}
	w.bits[id%windowLen/64] |= 1 << (id % 64)
	return true
}

// has reports whether id was used and is not older than the window.
func (w *window) has(id uint64) bool {
	return id < w.next && w.next-id <= windowLen && w.bits[id%windowLen/64]&(1<<(id%64)) != 0
}

func (w *window) clear(id uint64) { w.bits[id%windowLen/64] &^= 1 << (id % 64) }

// smallWindow is a window of the 64 newest numbers, and how many there were.
type smallWindow struct {
	next  uint32 // one more than the highest number seen
	count uint32
	bits  uint64 // bit i is number next-1-i
}

// use reports whether n is new, and marks it as used.
func (w *smallWindow) use(n uint32) bool {
	if n == math.MaxUint32 { // next could not count on
		return false
	}
	if n >= w.next {
		if gap := n - w.next + 1; gap < 64 {
			w.bits = w.bits<<gap | 1
		} else {
			w.bits = 1
		}
		w.next = n + 1
		w.count++
		return true
	}
	back := w.next - 1 - n
	if back >= 64 || w.bits&(1<<back) != 0 {
		return false
	}
	w.bits |= 1 << back
	w.count++
	return true
}

// used reports whether n was used; what is older than the window counts as used.
func (w *smallWindow) used(n uint32) bool {
	if n >= w.next {
		return false
	}
	back := w.next - 1 - n
	return back >= 64 || w.bits&(1<<back) != 0
}
