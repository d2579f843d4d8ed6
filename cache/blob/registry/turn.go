package registry

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// turns lets one at a time do something of a name. The zero value is ready.
type turns struct {
	mu  sync.Mutex
	all map[string]*turn
}

type turn struct {
	*semaphore.Weighted
	// users hold the turn or wait for it; guarded by the lock of turns.
	users int
}

// take waits for the turn of a name and returns the function that gives it back.
func (ts *turns) take(ctx context.Context, name string) (release func(), err error) {
	ts.mu.Lock()
	t := ts.all[name]
	if t == nil {
		if ts.all == nil {
			ts.all = map[string]*turn{}
		}
		t = &turn{Weighted: semaphore.NewWeighted(1)}
		ts.all[name] = t
	}
	t.users++
	ts.mu.Unlock()
	leave := func() {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(ts.all, name)
		}
	}
	if err := t.Acquire(ctx, 1); err != nil {
		leave()
		return nil, context.Cause(ctx)
	}
	return func() {
		t.Release(1)
		leave()
	}, nil
}
