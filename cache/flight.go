package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
)

// flight is work that several callers wait for. It goes on as long as one of them does, with what
// those who wait at the moment may use: it is the Access of them all.
type flight struct {
	done   chan struct{}
	err    error
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	waiters []*Access
	// left says that the last waiter has gone.
	left bool
}

// errAbandoned ends work that nobody waits for any more.
var errAbandoned = errors.New("nobody waits for it any more")

// share runs fn once for all who call it with the same key at the same time.
func (m *Manager) share(ctx context.Context, key string, acc Access, fn func(context.Context, Access) error) error {
	return m.shareNoting(ctx, key, acc, func() {}, fn)
}

// shareNoting is share that says, by calling joined, if the work was under way already.
func (m *Manager) shareNoting(ctx context.Context, key string, acc Access, joined func(), fn func(context.Context, Access) error) error {
	for {
		f, began, ok := m.join(key, &acc, fn)
		if !began {
			joined()
		}
		if !ok {
			// One that is being given up has to end before the work can begin again.
			select {
			case <-f.done:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case <-f.done:
			if !began && acc.uninvolved(f.err) {
				continue // who joined late may do better than those who were asked
			}
			return f.err
		case <-ctx.Done():
			f.leave(&acc)
			return context.Cause(ctx)
		}
	}
}

// uninvolved tells whether an error is only of sessions that are others': it is nothing to this
// request then, whose clients were not asked.
func (acc Access) uninvolved(err error) bool {
	faults := session.Faults(err)
	if len(faults) == 0 || acc.Sessions == nil {
		return false
	}
	return slices.ContainsFunc(acc.Sessions.SessionIDs(), func(id string) bool {
		return !slices.ContainsFunc(faults, func(f *session.Fault) bool { return f.ID == id })
	})
}

// join adds a waiter to the work of that key, which begins if it is not under way.
func (m *Manager) join(key string, acc *Access, fn func(context.Context, Access) error) (f *flight, began, joined bool) {
	m.flightsMu.Lock()
	defer m.flightsMu.Unlock()
	if f = m.flights[key]; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.left {
			return f, false, false
		}
		f.waiters = append(f.waiters, acc)
		return f, false, true
	}
	f = &flight{done: make(chan struct{}), waiters: []*Access{acc}}
	if !m.begin() {
		f.err = errors.New("cache is closed")
		close(f.done)
		return f, false, true
	}
	ctx, cancel := context.WithCancelCause(m.background)
	f.cancel = cancel
	m.flights[key] = f
	go func() {
		defer m.running.Done()
		defer cancel(nil)
		err := guard(func() error { return fn(ctx, Access{Sessions: f, Blobs: f}) })
		m.flightsMu.Lock()
		delete(m.flights, key)
		m.flightsMu.Unlock()
		f.err = err
		close(f.done)
	}()
	return f, true, true
}

// guard turns a panic into an error: the work is not done by the goroutine of a build.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

func (f *flight) leave(acc *Access) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters = slices.DeleteFunc(f.waiters, func(w *Access) bool { return w == acc })
	if len(f.waiters) == 0 {
		f.left = true
		f.cancel(errAbandoned)
	}
}

func (f *flight) accesses() []*Access {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.waiters)
}

// Find returns the sources of all who wait.
func (f *flight) Find(dgst digest.Digest) []blob.Source {
	var all []blob.Source
	for _, acc := range f.accesses() {
		if acc.Blobs != nil {
			all = append(all, acc.Blobs.Find(dgst)...)
		}
	}
	return all
}

// SessionIDs returns the sessions of all who wait.
func (f *flight) SessionIDs() []string {
	var ids []string
	for _, acc := range f.accesses() {
		if acc.Sessions != nil {
			ids = append(ids, acc.Sessions.SessionIDs()...)
		}
	}
	return ids
}
