package cache

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/openbuildkit/buildkit/snapshot"
)

// Ref is a handle on an immutable tree.
type Ref struct {
	m        *Manager
	rec      *record
	released atomic.Bool
}

// ID returns the record's id: what the solver stores as a result.
func (r *Ref) ID() string { return r.rec.id }

// Clone returns another handle on the same record; nil of nil.
func (r *Ref) Clone() *Ref {
	if r == nil {
		return nil
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.m.open(r.rec)
}

// Release ends the handle. It is an error to use it afterwards; releasing nil, or a handle for the
// second time, does nothing.
func (r *Ref) Release(ctx context.Context) error {
	if r == nil || r.released.Swap(true) {
		return nil
	}
	return r.m.release(ctx, r.rec)
}

// Lost returns an error that is ErrLost if the tree, or one that it is made of, has been found to be
// lost since the handle was had. Nothing is read to find that out.
func (r *Ref) Lost() error {
	if r == nil {
		return nil
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.rec.lost {
		return fmt.Errorf("cache record %s: %w", r.rec.id, ErrLost)
	}
	return nil
}

// Parent returns a handle of its own on the parent tree; nil if this is the lowest layer.
func (r *Ref) Parent() *Ref {
	if r.rec.parent == nil {
		return nil
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.m.open(r.rec.parent)
}

// Chain returns for each layer of the tree, lowest first, the id of the record whose tree ends with
// it; empty if there is no such tree below this one.
func (r *Ref) Chain() []string {
	if r == nil {
		return nil
	}
	at, n := r.rec, height(r.rec)
	ids := make([]string, n)
	for at != nil && n > 0 {
		ids[n-1] = at.id
		switch at.state.Kind {
		case layered:
			at, n = at.parent, n-1
		case merged:
			at = at.parts[0]
			n = height(at)
		default:
			at = nil
		}
	}
	return ids
}

// Description returns what is known of the record.
func (r *Ref) Description() Description {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.rec.description()
}

// Describe changes the description. An empty field keeps what is stored.
func (r *Ref) Describe(d Description) error { return r.m.describe(r.rec, d) }

// Value returns a value stored beside the record, nil if there is none.
func (r *Ref) Value(key string) []byte { return r.m.value(r.rec, key) }

// SetValue stores a value beside the record, nil removes it; it goes when the record goes. A value
// with an index can be searched with Manager.Search. What tells of the contents of the tree must
// be stored without an index: see MutableRef.SetValue.
func (r *Ref) SetValue(key string, value []byte, index string) error {
	return r.m.setValue(r.rec, key, value, index)
}

// Mount makes the tree real, fetching and unpacking what is lazy, and returns it as something to
// mount. A tree mounted for writing (readonly false) is a private view whose changes go with it;
// every mount of it is another view.
func (r *Ref) Mount(ctx context.Context, readonly bool, acc Access) (snapshot.Mountable, error) {
	if err := r.m.realise(ctx, r.rec, acc); err != nil {
		return nil, err
	}
	if !readonly {
		if err := r.m.settle(ctx, r.rec, ""); err != nil {
			return nil, err
		}
	}
	return &mountable{r.m, r.rec, readonly}, nil
}

// Realise makes the tree real without mounting it.
func (r *Ref) Realise(ctx context.Context, acc Access) error {
	return r.m.realise(ctx, r.rec, acc)
}

// Size returns the size of the record's own layer on disk in bytes, its blobs included, computed
// when unknown.
func (r *Ref) Size(ctx context.Context) (int64, error) { return r.m.size(ctx, r.rec) }

// mountable is the tree of an immutable record.
type mountable struct {
	m        *Manager
	rec      *record
	readonly bool
}

func (v *mountable) Mount() (_ []mount.Mount, release func() error, err error) {
	ctx := context.Background()
	done := v.m.hold(v.rec)
	defer func() {
		if err != nil {
			_ = done()
		}
	}()
	if v.readonly {
		mounts, err := v.m.snapshots.Tree(ctx, v.m.treeKey(v.rec))
		if errdefs.IsNotFound(err) {
			// Between the question for the key and the use of it the tree may have been
			// settled, which gives it another.
			mounts, err = v.m.snapshots.Tree(ctx, v.m.treeKey(v.rec))
		}
		if errdefs.IsNotFound(err) {
			return nil, nil, v.m.lose(v.rec, err)
		}
		return mounts, done, err
	}
	key := activeKey("view-" + newID())
	if err := v.m.snapshots.Prepare(ctx, key, v.rec.id); err != nil {
		if errdefs.IsNotFound(err) {
			return nil, nil, v.m.lose(v.rec, err)
		}
		return nil, nil, fmt.Errorf("make a view of cache record %s: %w", v.rec.id, err)
	}
	mounts, err := v.m.snapshots.Mounts(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	return mounts, func() error {
		err := v.m.snapshots.Remove(ctx, key)
		v.m.tidyLater(false)
		if doneErr := done(); err == nil {
			err = doneErr
		}
		return err
	}, nil
}

// MountDir is where snapshot.MountTemp mounts it.
func (v *mountable) MountDir() string { return v.m.snapshots.MountDir() }

// treeKey returns the name of the snapshot that has the tree of a record which is here.
func (m *Manager) treeKey(r *record) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case r.twin != nil && r.state.Tree == none:
		return activeKey(r.twin.id)
	case r.state.Tree == active:
		return activeKey(r.id)
	default:
		return r.id
	}
}
