package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/openbuildkit/buildkit/snapshot"
)

// MutableRef is a handle on a tree that is being written. There is one handle at a time.
type MutableRef struct {
	m        *Manager
	rec      *record
	released atomic.Bool
	// reading is set until BeginWrite, guarded by Manager.mu.
	reading bool
}

// ID returns the record's id.
func (r *MutableRef) ID() string { return r.rec.id }

// Description returns what is known of the record.
func (r *MutableRef) Description() Description {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return r.rec.description()
}

// Describe changes the description. An empty field keeps what is stored.
func (r *MutableRef) Describe(d Description) error { return r.m.describe(r.rec, d) }

// Value returns a value stored beside the record, nil if there is none.
func (r *MutableRef) Value(key string) []byte { return r.m.value(r.rec, key) }

// SetValue stores a value beside the record, nil removes it. If the daemon is killed while the
// record is held, values without an index are forgotten: nobody knows whether they fit the
// contents then.
func (r *MutableRef) SetValue(key string, value []byte, index string) error {
	return r.m.setValue(r.rec, key, value, index)
}

// Mount returns the tree as something to mount for writing or, if readonly, for reading.
func (r *MutableRef) Mount(_ context.Context, readonly bool) (snapshot.Mountable, error) {
	return &mutableMount{r.m, r.rec, readonly}, nil
}

// BeginWrite has to return before the tree of a handle of Reopen is written to. What was committed
// from it is dropped then for good, also if the machine stops. Calls do not overlap; after the
// first one, and for other handles, it does nothing.
func (r *MutableRef) BeginWrite(ctx context.Context) error {
	m, rec := r.m, r.rec
	m.mu.Lock()
	if !r.reading {
		m.mu.Unlock()
		return nil
	}
	if rec.gone {
		m.mu.Unlock()
		return fmt.Errorf("open cache record %s for writing: %w", rec.id, ErrLost)
	}
	r.reading = false
	drop := m.dropTwin(rec)
	rec.writes++
	rec.size = -1
	rec.state.Writing, rec.state.Boot = true, m.boot
	m.put(rec)
	m.mu.Unlock()
	// Before anybody writes: else the dropped record, and values that tell of the contents,
	// could outlive a crash that the new contents outlive too.
	err := m.store.Flush()
	err = errors.Join(err, m.remove(ctx, drop))
	m.dropped(idsOf(drop))
	if err != nil {
		return fmt.Errorf("open cache record %s for writing: %w", rec.id, err)
	}
	return nil
}

// dropTwin makes the record that was committed from a mutable one, which is held, unknown, and
// returns what has to be removed. The caller holds mu.
func (m *Manager) dropTwin(r *record) []*record {
	if r.twin == nil {
		return nil
	}
	r.usage.Count += r.twin.usage.Count
	// For a moment nobody holds their tree.
	r.handles--
	defer func() { r.handles++ }()
	return m.drop(r.twin)
}

// Commit ends the writing and returns the immutable tree. The handle is used up. A tree that was
// made with Retain stays what it is on disk until the immutable one is built upon or read as a
// blob; until then, and when no handle on the immutable one is left, GetMutable with the id of
// the mutable one goes on writing and the immutable one is dropped. Disk usage shows the two once.
// What was reopened and not written to gives the immutable tree of before.
func (r *MutableRef) Commit(_ context.Context) (*Ref, error) {
	if r.released.Swap(true) {
		return nil, fmt.Errorf("commit cache record %s: the handle is used up", r.rec.id)
	}
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.rec.gone {
		return nil, fmt.Errorf("commit cache record %s: %w", r.rec.id, ErrLost)
	}
	if twin := r.rec.twin; r.reading && twin != nil {
		r.rec.handles--
		return m.open(twin), nil
	}
	r.rec.state.Writing = false
	if !r.rec.retain {
		// The record becomes the immutable one, with the handle.
		r.rec.state.Mutable = false
		m.put(r.rec)
		m.syncLater()
		return &Ref{m: m, rec: r.rec}, nil
	}
	im := &record{
		id: newID(), parent: r.rec.parent, twin: r.rec, values: map[string]string{}, size: -1,
		state: state{
			Parent: r.rec.state.Parent, Twin: r.rec.id, Boot: r.rec.state.Boot,
			Type: r.rec.state.Type, Text: r.rec.state.Text, CreatedAt: r.rec.state.CreatedAt,
		},
	}
	r.rec.twin = im
	r.rec.handles--
	m.put(r.rec)
	m.insert(im)
	return m.open(im), nil
}

// Release ends the handle. The tree is kept for a later GetMutable if it was made with Retain,
// otherwise it is dropped. Releasing nil, or a handle that is used up, does nothing.
func (r *MutableRef) Release(ctx context.Context) error {
	if r == nil || r.released.Swap(true) {
		return nil
	}
	return r.m.release(ctx, r.rec)
}

// Discard ends the handle and drops the tree, also one that was made with Retain. It is for what
// went wrong while the tree was written.
func (r *MutableRef) Discard(ctx context.Context) error {
	if r == nil || r.released.Swap(true) {
		return nil
	}
	r.m.mu.Lock()
	r.m.unlink(r.rec)
	r.m.mu.Unlock()
	return r.m.release(ctx, r.rec)
}

// mutableMount is the tree of a mutable record.
type mutableMount struct {
	m        *Manager
	rec      *record
	readonly bool
}

func (v *mutableMount) Mount() (_ []mount.Mount, release func() error, err error) {
	done := v.m.hold(v.rec)
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	ctx := context.Background()
	key := activeKey(v.rec.id)
	if v.rec.retain && v.rec.parent != nil {
		mounts, unshare, err := v.rec.sharing.mount(v.m.snapshots.Mountable(ctx, key, false, nil), v.readonly)
		if err != nil {
			return nil, nil, v.m.lostIfMissing(v.rec, err)
		}
		return mounts, func() error { return errors.Join(unshare(), done()) }, nil
	}
	get := v.m.snapshots.Mounts
	if v.readonly {
		get = v.m.snapshots.Tree
	}
	mounts, err := get(ctx, key)
	return mounts, done, v.m.lostIfMissing(v.rec, err)
}

// lostIfMissing drops the record if err says that its snapshot is not there.
func (m *Manager) lostIfMissing(r *record, err error) error {
	if errdefs.IsNotFound(err) {
		return m.lose(r, err)
	}
	return err
}

// sharedMount is a tree that several may write to at the same time. A stack of overlayfs must not be
// mounted twice for writing, so it is mounted once and each user gets that. The zero value is ready
// for use.
type sharedMount struct {
	mu      sync.Mutex
	users   int
	dir     string
	release func() error
}

func (s *sharedMount) mount(tree snapshot.Mountable, readonly bool) ([]mount.Mount, func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		var err error
		if s.dir, s.release, err = snapshot.MountTemp(tree); err != nil {
			return nil, nil, err
		}
	}
	s.users++
	option := "rw"
	if readonly {
		option = "ro"
	}
	mounts := []mount.Mount{{Type: "bind", Source: s.dir, Options: []string{option, "rbind"}}}
	return mounts, sync.OnceValue(s.done), nil
}

func (s *sharedMount) done() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	return s.release()
}

// MountDir is where snapshot.MountTemp mounts it.
func (v *mutableMount) MountDir() string { return v.m.snapshots.MountDir() }
