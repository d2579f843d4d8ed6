//go:build linux

package overlay

import (
	"context"
	"errors"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/log"
)

// metaStore is the database of the snapshotter. A transaction waits for the disk, twice, and there is
// one at a time, so what is to be written meanwhile is written together by the next one: builds with many
// small steps at once do not stand in line for the disk.
type metaStore struct {
	*storage.MetaStore

	// turn has an element while somebody writes.
	turn chan struct{}

	mu sync.Mutex
	// waiting is what the next one who has its turn writes.
	waiting []*pending
}

// write is a change of the database that is made whole or not at all.
type write struct {
	// do makes it, with operations of the snapshotter that are given ctx. It may be called again after a
	// transaction that did not hold.
	do func(ctx context.Context) error
	// undo removes what do made elsewhere, of a transaction that did not hold. It may be nil.
	undo func() error
}

// then returns a write that is w followed by other.
func (w write) then(other write) write {
	return write{
		do: func(ctx context.Context) error {
			if err := w.do(ctx); err != nil {
				return err
			}
			return other.do(ctx)
		},
		undo: other.undo,
	}
}

// pending is a write that somebody waits for.
type pending struct {
	write
	err  error
	done chan struct{} // closed when err is known
}

// errNotWritten is of writes whose transaction has ended in a panic.
var errNotWritten = errors.New("the database of snapshots has not been written")

// update writes w, in one transaction with what others write at that time. It does not end before
// the disk has it: a write is too short to be cancelled.
func (m *metaStore) update(w write) error {
	p := &pending{write: w, err: errNotWritten, done: make(chan struct{})}
	m.mu.Lock()
	m.waiting = append(m.waiting, p)
	m.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case m.turn <- struct{}{}:
	}
	defer func() { <-m.turn }()
	m.mu.Lock()
	all := m.waiting
	m.waiting = nil
	m.mu.Unlock()
	m.writeAll(all) // without p if somebody else has written it
	return p.err
}

// writeAll writes in one transaction, and what an error of one has kept from being written on its own.
func (m *metaStore) writeAll(all []*pending) {
	if len(all) == 0 {
		return
	}
	defer func() {
		for _, p := range all {
			close(p.done)
		}
	}()
	err := m.together(all)
	if err != nil && len(all) > 1 {
		for _, p := range all {
			p.err = m.together([]*pending{p})
		}
		return
	}
	for _, p := range all {
		p.err = err
	}
}

// together is one transaction.
func (m *metaStore) together(all []*pending) error {
	done := 0
	err := m.MetaStore.WithTransaction(context.Background(), true, func(ctx context.Context) error {
		ctx = context.WithValue(ctx, joinedKey{}, true)
		for _, p := range all {
			if err := p.do(ctx); err != nil {
				return err
			}
			done++
		}
		return nil
	})
	if err == nil {
		return nil
	}
	for _, p := range all[:done] {
		if p.undo == nil {
			continue
		}
		if err := p.undo(); err != nil {
			log.L.WithError(err).Warn("files of a snapshot that was not made are left")
		}
	}
	return err
}

type joinedKey struct{}

// WithTransaction is how the snapshotter reads and writes: in the transaction that ctx belongs to, if
// any.
func (m *metaStore) WithTransaction(ctx context.Context, writable bool, fn storage.TransactionCallback) error {
	if ctx.Value(joinedKey{}) != nil {
		return fn(ctx)
	}
	return m.MetaStore.WithTransaction(ctx, writable, fn)
}
