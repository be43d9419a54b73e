package share

import "container/heap"

// ready is a heap of siblings (container/heap): the one whose turn it is first.
type ready []*node

var _ heap.Interface = (*ready)(nil)

func (r ready) Len() int { return len(r) }

func (r ready) Less(i, j int) bool {
	if r[i].strict != r[j].strict {
		return r[i].strict < r[j].strict
	}
	return r[i].start < r[j].start
}

func (r ready) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].index, r[j].index = i, j
}

func (r *ready) Push(x any) {
	n := x.(*node)
	n.index = len(*r)
	*r = append(*r, n)
}

func (r *ready) Pop() any {
	last := len(*r) - 1
	n := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	n.index = -1
	return n
}

// parked is a heap of nodes whose buckets are empty, the first to go on first.
type parked []*node

var _ heap.Interface = (*parked)(nil)

func (p parked) Len() int           { return len(p) }
func (p parked) Less(i, j int) bool { return p[i].until.Before(p[j].until) }

func (p parked) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].spot, p[j].spot = i, j
}

func (p *parked) Push(x any) {
	n := x.(*node)
	n.spot = len(*p)
	*p = append(*p, n)
}

func (p *parked) Pop() any {
	last := len(*p) - 1
	n := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	n.spot = -1
	return n
}
