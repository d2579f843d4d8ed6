//go:build linux

package git

import (
	"context"
	"sync"
)

// locks lets one job at a time use a repository; the others wait in no order. The zero value is
// ready for use.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	turn  chan struct{}
	users int
}

// acquire takes the lock of a key. If another job has it, it calls waiting and, once it waits no
// more, what that returned. The error is the cause of the end of ctx.
func (l *locks) acquire(ctx context.Context, key string, waiting func() (done func(error) error)) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	k := l.held[key]
	if k == nil {
		k = &lock{turn: make(chan struct{}, 1)}
		l.held[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.held, key)
		}
	}
	took := func() { <-k.turn; leave() }
	select {
	case k.turn <- struct{}{}:
		return took, nil
	default:
	}
	done := waiting()
	select {
	case k.turn <- struct{}{}:
		return took, done(nil)
	case <-ctx.Done():
		leave()
		return nil, done(context.Cause(ctx))
	}
}
