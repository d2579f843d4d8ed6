package source

import (
	"context"
	"sync"
)

// Memo holds what was resolved in the life of one build, so that a name stands for one thing from
// its first use to the last and is asked for once, however many steps start from it. The zero
// value is ready for use; a nil Memo remembers nothing. Failures are not remembered.
type Memo struct {
	mu sync.Mutex
	m  map[string]*promise
}

type promise struct {
	done    chan struct{}
	cancel  context.CancelCauseFunc
	waiters int
	value   any
	err     error
}

// Once returns the value of key, computed with fn the first time. Callers that come meanwhile
// wait for the same computation, which is cancelled when the last of them goes. The type of a
// key's value must always be the same.
func Once[T any](ctx context.Context, m *Memo, key string, fn func(context.Context) (T, error)) (T, error) {
	if m == nil {
		return fn(ctx)
	}
	v, err := m.do(ctx, key, func(ctx context.Context) (any, error) { return fn(ctx) })
	t, _ := v.(T)
	return t, err
}

func (m *Memo) do(ctx context.Context, key string, fn func(context.Context) (any, error)) (any, error) {
	m.mu.Lock()
	p := m.m[key]
	if p == nil {
		p = m.start(ctx, key, fn)
	}
	p.waiters++
	m.mu.Unlock()
	select {
	case <-p.done:
		return p.value, p.err
	case <-ctx.Done():
		m.leave(key, p)
		return nil, context.Cause(ctx)
	}
}

// start runs fn under key. The lock is held.
func (m *Memo) start(ctx context.Context, key string, fn func(context.Context) (any, error)) *promise {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p := &promise{done: make(chan struct{}), cancel: cancel}
	if m.m == nil {
		m.m = map[string]*promise{}
	}
	m.m[key] = p
	go func() {
		defer cancel(nil)
		p.value, p.err = fn(ctx)
		if p.err != nil {
			m.forget(key, p)
		}
		close(p.done)
	}()
	return p
}

// leave ends a computation that nobody waits for any more.
func (m *Memo) leave(key string, p *promise) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.waiters--
	select {
	case <-p.done:
		return
	default:
	}
	if p.waiters == 0 {
		p.cancel(context.Canceled)
		if m.m[key] == p {
			delete(m.m, key)
		}
	}
}

func (m *Memo) forget(key string, p *promise) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m[key] == p {
		delete(m.m, key)
	}
}
