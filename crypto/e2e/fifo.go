package e2e

// fifo is a queue that reuses its memory.
type fifo[T any] struct {
	items []T
	first int // items before it are gone
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }

// all is what is in the queue, the oldest first, valid until the next push.
func (q *fifo[T]) all() []T { return q.items[q.first:] }

func (q *fifo[T]) push(x T) {
	if len(q.items) == cap(q.items) && q.first > len(q.items)/2 {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, x)
}

func (q *fifo[T]) pop() T {
	var none T
	x := q.items[q.first]
	q.items[q.first] = none
	if q.first++; q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
	}
	return x
}
