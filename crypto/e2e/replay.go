package e2e

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

func (w *window) clear(id uint64) { w.bits[id%windowLen/64] &^= 1 << (id % 64) }
