package registry

import (
	"context"
	"errors"
	"sync"
)

// group runs the parts of a push in parallel. Where several fail, the error is always that of the
// first in their order: when one fails, those after it are cancelled; those before it are let go
// on, for they may fail too, but send no more bytes, for that may take long.
type group struct {
	wg sync.WaitGroup

	mu      sync.Mutex
	parts   []*part
	sends   map[*part]context.CancelCauseFunc
	failed  int // index of the first part that failed, or -1
	failure error
}

type part struct {
	index  int
	cancel context.CancelCauseFunc
}

type partKey struct{}

// errFailedElsewhere is the cause with which parts are cancelled because of another one.
var errFailedElsewhere = errors.New("another part of the push has failed")

func newGroup() *group {
	return &group{failed: -1, sends: map[*part]context.CancelCauseFunc{}}
}

// start runs a part, within ctx. Parts are started in the order of their indexes.
func (g *group) start(ctx context.Context, index int, fn func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &part{index, cancel}
	g.mu.Lock()
	g.parts = append(g.parts, p)
	if g.failed >= 0 && index > g.failed {
		cancel(errFailedElsewhere)
	}
	g.mu.Unlock()
	g.wg.Go(func() {
		defer cancel(nil)
		if err := fn(context.WithValue(ctx, partKey{}, p)); err != nil {
			g.fail(index, err, errors.Is(context.Cause(ctx), errFailedElsewhere))
		}
	})
}

func (g *group) fail(index int, err error, cancelled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cancelled || errors.Is(err, errFailedElsewhere) || g.failed >= 0 && index > g.failed {
		return
	}
	g.failed, g.failure = index, err
	for _, p := range g.parts {
		if p.index > index {
			p.cancel(errFailedElsewhere)
		}
	}
	for _, stop := range g.sends {
		stop(errFailedElsewhere)
	}
}

// sending returns the context in which a part sends bytes, and the function that ends it.
func (g *group) sending(ctx context.Context) (context.Context, func()) {
	p, _ := ctx.Value(partKey{}).(*part)
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed >= 0 {
		cancel(errFailedElsewhere)
	}
	g.sends[p] = cancel
	return ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.sends, p)
		cancel(nil)
	}
}

func (g *group) wait(ctx context.Context) error {
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return g.failure
}
