package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/api/event"
)

// release ends one handle of a record.
func (m *Manager) release(ctx context.Context, r *record) error {
	m.mu.Lock()
	r.handles--
	if r.handles == 0 {
		r.usage.Count++
		r.usage.LastUsed = time.Now()
		r.progress = event.Scope{}
		if !r.gone {
			r.removed = nil // it is stored
		}
		m.putUsage(r)
		if r.state.Writing {
			r.state.Writing = false
			m.put(r)
			m.syncLater()
		}
	}
	gone := m.ended(r)
	m.mu.Unlock()
	return m.remove(ctx, gone)
}

// hold keeps a record while something of it is mounted; the function returned ends that.
func (m *Manager) hold(r *record) func() error {
	m.mu.Lock()
	r.mounts++
	m.mu.Unlock()
	return func() error {
		m.mu.Lock()
		r.mounts--
		gone := m.ended(r)
		m.mu.Unlock()
		return m.remove(context.Background(), gone)
	}
}

// working is hold for work that goes on when those who wanted it have gone: the record may have gone
// too when it begins, which is an error.
func (m *Manager) working(r *record, work func() error) error {
	m.mu.Lock()
	if r.children < 0 {
		m.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNotFound, r.id)
	}
	r.mounts++
	m.mu.Unlock()
	err := work()
	m.mu.Lock()
	r.mounts--
	gone := m.ended(r)
	m.mu.Unlock()
	return errors.Join(err, m.remove(context.Background(), gone))
}

// drop makes a record unknown and returns what has to be removed from disk now. If it is in use
// that comes when it is not any more. The caller holds mu.
func (m *Manager) drop(r *record) []*record {
	twin := r.twin
	m.unlink(r)
	if r.children > 0 {
		r.state.Dropped = true
		m.store.PutRecord(r.id, mustJSON(r.state))
	}
	gone := m.collect(r)
	if twin != nil && twin.gone {
		gone = append(gone, m.collect(twin)...)
	}
	return gone
}

// unlink takes a record out of everything that can find it.
func (m *Manager) unlink(r *record) {
	if r.gone {
		return
	}
	r.gone = true
	delete(m.records, r.id)
	for _, v := range r.state.Blobs {
		m.unindexLayer(r, v)
	}
	for key := range r.values {
		m.unindexValue(r, key)
	}
	m.store.DeleteRecord(r.id, slices.Collect(maps.Keys(r.values)))
	if t := r.twin; t != nil && !t.inUse() && !r.inUse() {
		m.untwin(r)
	}
}

// untwin parts the two records of one tree, which the immutable one loses with that.
func (m *Manager) untwin(r *record) {
	im := r
	if im.state.Mutable {
		im = r.twin
	}
	mutable := im.twin
	im.twin, mutable.twin = nil, nil
	if mutable.gone {
		m.unlink(im)
	}
}

// ended returns what has to be removed from disk after one use of r has ended. The caller holds mu.
func (m *Manager) ended(r *record) []*record {
	t := r.twin
	if t == nil || !t.gone && !r.gone || r.inUse() {
		return m.collect(r)
	}
	// One of the two was dropped while the immutable one still needed their tree.
	m.untwin(r)
	return append(m.collect(r), m.collect(t)...)
}

// collect returns the records that nobody can reach any more, beginning with r and going on with
// its parents, and counts them out. The caller holds mu and hands them to remove without it.
func (m *Manager) collect(r *record) []*record {
	var gone []*record
	for todo := []*record{r}; len(todo) > 0; {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if r.inUse() || r.children != 0 || r.twin != nil || !r.gone && (!r.state.Mutable || r.retain) {
			continue
		}
		m.unlink(r)
		if r.state.Dropped {
			m.store.DeleteRecord(r.id, nil)
		}
		gone = append(gone, r)
		// Not twice, whoever calls next.
		r.children = -1
		for _, p := range r.below() {
			p.children--
			todo = append(todo, p)
		}
	}
	return gone
}

// remove removes from disk what collect has returned.
func (m *Manager) remove(ctx context.Context, gone []*record) error {
	if len(gone) == 0 {
		return nil
	}
	// What nobody can reach has to go, also for a caller that has given up.
	ctx = context.WithoutCancel(ctx)
	var keys []string
	var leased []string
	m.mu.Lock()
	for _, r := range gone {
		switch r.state.Tree {
		case settled:
			keys = append(keys, r.id)
		case active:
			keys = append(keys, activeKey(r.id))
		}
		if r.leased {
			leased = append(leased, r.id)
		}
	}
	m.mu.Unlock()
	err := errors.Join(m.removeSnapshots(ctx, keys), m.removeLeases(ctx, leased))
	m.tidyLater(len(leased) > 0)
	return err
}

func (m *Manager) removeSnapshots(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	err := m.snapshots.Remove(ctx, keys...)
	if err == nil {
		return nil
	}
	// One of them is not as it should be; the others can go all the same.
	var errs []error
	for _, key := range keys {
		if err := m.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove snapshot %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// leasePrefix begins the ids of leases of records.
const leasePrefix = "record-"

func (m *Manager) removeLeases(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return m.leaseTx(ctx, func(ctx context.Context) error {
		for _, id := range ids {
			if err := m.leases.Delete(ctx, leases.Lease{ID: leasePrefix + id}); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
}

// leaseTx runs fn with a context in which all changes of leases are one transaction.
func (m *Manager) leaseTx(ctx context.Context, fn func(context.Context) error) error {
	return m.meta.Update(func(tx *bbolt.Tx) error {
		return fn(boltutil.WithTransaction(ctx, tx))
	})
}

// lose drops a record whose bytes are not where they should be, and all that stand on it.
func (m *Manager) lose(r *record, cause error) error {
	log.L.WithError(cause).WithField("record", r.id).Warn("cache record is lost")
	var ids []string
	var gone []*record
	m.mu.Lock()
	for _, lost := range m.descendants(r) {
		lost.lost = true
		if !lost.gone {
			ids = append(ids, lost.id)
		}
		m.unlink(lost)
		gone = append(gone, m.collect(lost)...)
	}
	m.mu.Unlock()
	err := m.remove(context.Background(), gone)
	m.dropped(ids)
	return errors.Join(fmt.Errorf("cache record %s: %w: %w", r.id, ErrLost, cause), err)
}

// descendants returns a record and all that cannot do without it, those that stand on others
// before these. The caller holds mu.
func (m *Manager) descendants(r *record) []*record {
	children := map[*record][]*record{}
	for _, c := range m.records {
		for _, p := range c.below() {
			children[p] = append(children[p], c)
		}
	}
	all := []*record{r}
	if r.twin != nil {
		all = append(all, r.twin)
	}
	seen := map[*record]bool{}
	for i := 0; i < len(all); i++ {
		for _, c := range children[all[i]] {
			if !seen[c] {
				seen[c] = true
				all = append(all, c)
			}
		}
	}
	slices.Reverse(all)
	return all
}
