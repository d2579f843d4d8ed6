package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/internal/recordstore"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/boltfile"
)

// Manager holds the records of one worker. It is made with Open.
type Manager struct {
	closer

	dir string
	// boot names the run of the machine.
	boot      string
	store     *recordstore.Store
	snapshots *snapshot.Store
	bolt      *boltfile.DB
	meta      *metadata.DB
	content   content.Store
	// blobs is the store below content, which knows no namespaces and leases.
	blobs   content.Store
	leases  leases.Manager
	fetches *semaphore.Weighted
	// unpacks bounds how many layers are unpacked at a time.
	unpacks *semaphore.Weighted
	// making bounds how many blobs are made at a time, compressors the memory that this takes.
	making      *semaphore.Weighted
	compressors blob.Compressors

	// mu guards what follows and the records. It is never held during I/O.
	mu      sync.Mutex
	records map[string]*record
	// layers finds the record of a layer on a parent.
	layers map[layerKey]*record
	index  map[indexKey]map[string]*record
	onDrop func(ids []string)

	flightsMu sync.Mutex
	flights   map[string]*flight

	tidying  tidying
	syncing  syncing
	expiring expiring
}

// NewOpt is how a mutable tree is made.
type NewOpt struct {
	Description
	// Retain keeps the tree, still mutable, when its handle is released.
	Retain bool
}

// SetOnDrop sets the function that is told the ids of records that have been dropped, so that
// their owner can forget what refers to them. It is called without locks held, with the ids of
// one prune together.
func (m *Manager) SetOnDrop(fn func(ids []string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onDrop = fn
}

func (m *Manager) dropped(ids []string) {
	m.mu.Lock()
	fn := m.onDrop
	m.mu.Unlock()
	if fn != nil && len(ids) > 0 {
		fn(ids)
	}
}

// Get opens an immutable record. The error is ErrNotFound or ErrLost if it cannot be had.
func (m *Manager) Get(_ context.Context, id string) (*Ref, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[id]
	if r == nil || r.state.Mutable || r.twin != nil && r.twin.handles > 0 {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return m.open(r), nil
}

// open returns a handle. The caller holds mu.
func (m *Manager) open(r *record) *Ref {
	r.handles++
	return &Ref{m: m, rec: r}
}

// GetMutable opens a retained mutable record; ErrLocked if somebody has it. When it returns, what
// was committed from it without being built upon is dropped for good, also if the machine stops.
func (m *Manager) GetMutable(ctx context.Context, id string) (*MutableRef, error) {
	ref, err := m.Reopen(id)
	if err != nil {
		return nil, err
	}
	if err := ref.BeginWrite(ctx); err != nil {
		return nil, errors.Join(err, ref.Release(ctx))
	}
	return ref, nil
}

// Reopen is GetMutable for those who may find that there is nothing to write. Until BeginWrite
// nothing is dropped or stored; while the handle is held, what was committed cannot be opened.
func (m *Manager) Reopen(id string) (*MutableRef, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[id]
	if r == nil || !r.state.Mutable {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	if r.inUse() || r.twin != nil && (r.twin.inUse() || r.twin.children > 0) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, id)
	}
	r.handles++
	return &MutableRef{m: m, rec: r, reading: true}, nil
}

// New makes a mutable tree on top of parent, nil for an empty one. The parent is made real first.
// The caller keeps its handle on parent.
func (m *Manager) New(ctx context.Context, parent *Ref, acc Access, opt NewOpt) (*MutableRef, error) {
	r := m.newRecord(parent, opt.Description)
	r.retain = opt.Retain
	r.state.Mutable, r.state.Writing, r.state.Tree = true, true, active
	r.state.Boot = m.boot
	if parent == nil {
		if err := m.snapshots.Prepare(ctx, activeKey(r.id), ""); err != nil {
			return nil, fmt.Errorf("make an empty tree: %w", err)
		}
	} else {
		if err := m.realise(ctx, parent.rec, acc); err != nil {
			return nil, err
		}
		if err := m.settle(ctx, parent.rec, activeKey(r.id)); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.insert(r)
	r.handles++
	return &MutableRef{m: m, rec: r}, nil
}

// newRecord returns a record that is not known to anybody yet.
func (m *Manager) newRecord(parent *Ref, d Description) *record {
	r := &record{id: newID(), values: map[string]string{}, size: -1}
	if parent != nil {
		r.parent = parent.rec
		r.state.Parent = parent.rec.id
	}
	r.state.Type = cmp.Or(d.Type, Regular)
	r.state.Text = d.Text
	if r.state.CreatedAt = d.CreatedAt; d.CreatedAt.IsZero() {
		r.state.CreatedAt = time.Now()
	}
	return r
}

// insert makes a record known. The caller holds mu.
func (m *Manager) insert(r *record) {
	m.records[r.id] = r
	for _, p := range r.below() {
		p.children++
	}
	if r.state.DiffID != "" {
		m.indexLayer(r)
	}
	m.put(r)
	if r.state.Boot != "" {
		m.syncLater()
	}
}

// indexLayer lets AddBlob find the record, unless there is another of the same layer.
func (m *Manager) indexLayer(r *record) {
	if r.state.Kind != layered {
		return
	}
	for _, v := range r.state.Blobs {
		key := keyOf(r.parent, r.state.DiffID, v.Descriptor.Digest)
		if m.layers[key] == nil && v.ofTree() {
			m.layers[key] = r
		}
	}
}

// unindexLayer is the opposite, for one of the record's forms.
func (m *Manager) unindexLayer(r *record, v variant) {
	if key := keyOf(r.parent, r.state.DiffID, v.Descriptor.Digest); m.layers[key] == r {
		delete(m.layers, key)
	}
}

// AddBlob returns the immutable tree that is parent (nil for none) with the layer desc on top.
// Nothing is fetched. The same parent chain, blob and diffID give the same record. Parent stays
// the caller's.
func (m *Manager) AddBlob(_ context.Context, parent *Ref, desc ocispec.Descriptor, diffID digest.Digest, d Description) (*Ref, error) {
	if err := diffID.Validate(); err != nil {
		return nil, fmt.Errorf("diff id %q of layer %s: %w", diffID, desc.Digest, err)
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q of a layer: %w", desc.Digest, err)
	}
	v := variant{Descriptor: desc, Compression: blob.FormOf(desc)}
	r := m.newRecord(parent, d)
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.layers[keyOf(r.parent, diffID, desc.Digest)]; old != nil {
		return m.open(old), nil
	}
	r.state.DiffID = diffID
	r.state.Blobs = []variant{v}
	m.insert(r)
	return m.open(r), nil
}

// Search returns the ids of records with a value stored under key with that index, newest first.
func (m *Manager) Search(key, index string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*record
	for _, r := range m.index[indexKey{key, index}] {
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b *record) int {
		return cmp.Or(b.state.CreatedAt.Compare(a.state.CreatedAt), cmp.Compare(a.id, b.id))
	})
	ids := make([]string, len(found))
	for i, r := range found {
		ids[i] = r.id
	}
	return ids
}

// Drop makes records unknown whose owner has no more use for them; those in use or built upon go
// when they are not any more. Ids that are not known are passed over.
func (m *Manager) Drop(ctx context.Context, ids ...string) error {
	m.mu.Lock()
	var gone []*record
	for _, id := range ids {
		if r := m.records[id]; r != nil {
			gone = append(gone, m.drop(r)...)
		}
	}
	m.mu.Unlock()
	m.dropped(idsOf(gone))
	return m.remove(ctx, gone)
}

func idsOf(records []*record) []string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.id
	}
	return ids
}

// value returns a value of a record.
func (m *Manager) value(r *record, key string) []byte {
	m.mu.Lock()
	_, ok := r.values[key]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	v, err := m.store.Value(r.id, key)
	if err != nil {
		return nil // as if it had never been stored; the file's other users will report it
	}
	return v
}

func (m *Manager) setValue(r *record, key string, value []byte, index string) error {
	if key == "" || bytes.ContainsRune([]byte(key), 0) {
		return fmt.Errorf("invalid key %q of a value", key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.gone {
		return fmt.Errorf("%w: %s", ErrNotFound, r.id)
	}
	m.unindexValue(r, key)
	if value == nil {
		delete(r.values, key)
		index = ""
	} else {
		r.values[key] = index
		m.indexValue(r, key, index)
	}
	m.store.PutValue(r.id, key, value, index)
	return nil
}

func (m *Manager) indexValue(r *record, key, index string) {
	if index == "" {
		return
	}
	k := indexKey{key, index}
	if m.index[k] == nil {
		m.index[k] = map[string]*record{}
	}
	m.index[k][r.id] = r
}

func (m *Manager) unindexValue(r *record, key string) {
	index := r.values[key]
	if index == "" {
		return
	}
	k := indexKey{key, index}
	if delete(m.index[k], r.id); len(m.index[k]) == 0 {
		delete(m.index, k)
	}
}

func (m *Manager) describe(r *record, d Description) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.Type != "" {
		r.state.Type = d.Type
	}
	if d.Text != "" {
		r.state.Text = d.Text
	}
	if !d.CreatedAt.IsZero() {
		r.state.CreatedAt = d.CreatedAt
	}
	m.put(r)
	return nil
}

// settle makes the tree of an immutable record that is here a committed snapshot, and makes the
// active snapshot next on it if next is not empty.
func (m *Manager) settle(ctx context.Context, r *record, next string) error {
	r.settling.Lock()
	defer r.settling.Unlock()
	m.mu.Lock()
	tree, from := r.state.Tree, r.id
	if r.twin != nil {
		tree, from = active, r.twin.id
	}
	m.mu.Unlock()
	var err error
	committed := tree == active
	switch {
	case tree == settled && next == "":
		return nil
	case tree == settled:
		err = m.snapshots.Prepare(ctx, next, r.id)
	case tree == active && next == "":
		err = m.snapshots.Commit(ctx, r.id, activeKey(from))
		committed = err == nil
	case tree == active:
		committed, err = m.snapshots.CommitPrepare(ctx, r.id, activeKey(from), next)
	default:
		return m.lose(r, errors.New("its tree is not here"))
	}
	if committed {
		m.settled(r)
	}
	if errdefs.IsNotFound(err) || errors.Is(err, os.ErrNotExist) {
		return m.lose(r, err)
	}
	if err != nil {
		return fmt.Errorf("build on cache record %s: %w", r.id, err)
	}
	return nil
}

// settled notes that the tree of r is a committed snapshot now.
func (m *Manager) settled(r *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.state.Tree, r.state.Twin = settled, ""
	if r.twin != nil {
		// The mutable record has become the immutable one.
		twin := r.twin
		r.usage.Count += twin.usage.Count
		twin.state.Tree = none
		twin.twin, r.twin = nil, nil
		m.drop(twin)
	}
	m.put(r)
}
