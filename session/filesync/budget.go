package filesync

import "sync"

// budget bounds the bytes that wait to be written.
type budget struct {
	mu   sync.Mutex
	cond *sync.Cond
	free int
	size int
	over bool
}

func newBudget(size int) *budget {
	b := &budget{free: size, size: size}
	b.cond = sync.NewCond(&b.mu)
	return b
}

// take waits until n bytes are free, or all are if n is more than there is. It returns false if
// the budget was closed.
func (b *budget) take(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.free < min(n, b.size) && !b.over {
		b.cond.Wait()
	}
	b.free -= n
	return !b.over
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	b.cond.Broadcast()
}

func (b *budget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.cond.Broadcast()
}
