package solver

import (
	"context"
	"sync"
	"sync/atomic"
)

// barrier opens when all of its parties have arrived.
type barrier struct {
	left atomic.Int64
	open chan struct{}
}

func newBarrier(parties int) *barrier {
	b := &barrier{open: make(chan struct{})}
	b.left.Store(int64(parties))
	return b
}

// party is one who arrives at a barrier, once however often it says so.
type party struct {
	arrive func()
	open   <-chan struct{}
}

func (b *barrier) party() party {
	return party{
		open: b.open,
		arrive: sync.OnceFunc(func() {
			if b.left.Add(-1) == 0 {
				close(b.open)
			}
		}),
	}
}

// await arrives and waits for the others.
func (p party) await(ctx context.Context) error {
	p.arrive()
	select {
	case <-p.open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
