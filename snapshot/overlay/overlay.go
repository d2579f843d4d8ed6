//go:build linux

// Package overlay keeps file trees with overlayfs: it wraps containerd's overlay snapshotter and
// adds what a builder needs of it.
//
// A committed snapshot can be mounted read-only without a snapshot of its own. A snapshot can be
// committed and the next one made on it in one transaction, which is all that one build step
// costs. And a chain of snapshots may be of any length, although the kernel stacks 500 lower
// directories at most: see merge.go for how long chains are kept short.
//
// The package is used by package snapshot only. The folder given to New belongs to it alone. All
// methods may be called concurrently; what a caller must see to is that a snapshot is not removed
// while it is used, and that nobody writes into a committed one.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/errdefs"
	"go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
	"github.com/openbuildkit/buildkit/snapshot/internal/folder"
	"github.com/openbuildkit/buildkit/snapshot/layer"
	"github.com/openbuildkit/buildkit/snapshot/merge"
)

// upperDirLabel is the label by which containerd's snapshotter tells where a layer's files are.
const upperDirLabel = "containerd.io/snapshot/overlay.upperdir"

// Supported returns nil if overlayfs can be used below root, and otherwise why not.
func Supported(root string) error { return overlayutils.Supported(root) }

// Snapshotter is a set of snapshots in one folder.
type Snapshotter struct {
	// volatile tells that mounts for writing need not be synced when they end.
	volatile bool
	inner    snapshots.Snapshotter
	meta     *metaStore
	options  []string
	xattrs   layer.XattrPrefix

	mu    sync.RWMutex
	nodes map[string]*node

	// merging is held while a chain is made shorter: two chains that share layers would
	// otherwise do the same work twice.
	merging sync.Mutex
}

// node is a snapshot in memory. Fields do not change, except merged under Snapshotter.mu.
type node struct {
	name   string
	parent *node
	// dir holds the files of this layer alone.
	dir string
	// level is 0 for a snapshot that a caller made; see merge.go.
	level  int
	active bool
	// merged stands for this snapshot when something is stacked on it, nil for itself.
	merged *node
	// own is how many bytes of its files are not those of other snapshots, nil for all.
	own *int64
}

// New opens the snapshots below root, which is made if missing.
func New(ctx context.Context, root string) (*Snapshotter, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(root, "metadata.db")
	if err := boltfile.Check(file); err != nil {
		return nil, err
	}
	ms, err := storage.NewMetaStore(file, func(o *bbolt.Options) error {
		// The free list is rebuilt when the file is opened; writing it with every
		// transaction is what makes bbolt slow on large files.
		o.NoFreelistSync = true
		o.FreelistType = bbolt.FreelistMapType
		return nil
	})
	if err != nil {
		return nil, err
	}
	meta := &metaStore{MetaStore: ms, turn: make(chan struct{}, 1)}
	options := mountOptions()
	inner, err := overlay.NewSnapshotter(root, overlay.AsynchronousRemove, overlay.WithUpperdirLabel,
		overlay.WithMetaStore(meta), overlay.WithMountOptions(options))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	s := &Snapshotter{inner: inner, meta: meta, nodes: map[string]*node{}}
	if err := s.detect(root, options); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	if err := s.load(ctx, root); err != nil {
		return nil, errors.Join(fmt.Errorf("read overlay snapshots: %w", err), inner.Close())
	}
	return s, nil
}

// mountOptions switches off the features of overlayfs that write into a layer what only the same
// stack of layers can make sense of: a layer must mean the same wherever it is stacked.
func mountOptions() []string {
	var options []string
	for param, option := range map[string]string{"redirect_dir": "redirect_dir=nofollow", "metacopy": "metacopy=off"} {
		if _, err := os.Stat("/sys/module/overlay/parameters/" + param); err == nil {
			options = append(options, option)
		}
	}
	return options
}

// detect finds the options of a read-only stack, which are those that containerd's snapshotter
// finds for one that is written to.
func (s *Snapshotter) detect(root string, options []string) error {
	userxattr, err := overlayutils.NeedsUserXAttr(root)
	if err != nil {
		return err
	}
	s.xattrs = layer.TrustedXattrs
	if userxattr {
		s.xattrs = layer.UserXattrs
		options = append(options, "userxattr")
	}
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		options = append(options, "index=off")
	}
	s.options = options
	s.volatile, err = volatileWorks(root, options)
	return err
}

// load reads the names of all snapshots and drops merged ones that were not finished.
func (s *Snapshotter) load(ctx context.Context, root string) error {
	var infos []snapshots.Info
	err := s.inner.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		infos = append(infos, info)
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) { // not found: nothing has ever been stored
		return err
	}
	known := map[string]struct{}{}
	for _, info := range infos {
		if strings.HasSuffix(info.Name, mergingSuffix) {
			if err := s.inner.Remove(ctx, info.Name); err != nil {
				return err
			}
			continue
		}
		n := &node{name: info.Name, dir: info.Labels[upperDirLabel], active: info.Kind == snapshots.KindActive}
		if l := info.Labels[levelLabel]; l != "" {
			if n.level, err = strconv.Atoi(l); err != nil {
				return fmt.Errorf("snapshot %s: level %q", info.Name, l)
			}
		}
		if l := info.Labels[ownLabel]; l != "" {
			own, err := strconv.ParseInt(l, 10, 64)
			if err != nil {
				return fmt.Errorf("snapshot %s: size %q", info.Name, l)
			}
			n.own = &own
		}
		s.nodes[info.Name] = n
		known[filepath.Base(filepath.Dir(n.dir))] = struct{}{}
	}
	for _, info := range infos {
		if n := s.nodes[info.Name]; n != nil {
			n.parent = s.nodes[info.Parent]
		}
		if of, ok := strings.CutSuffix(info.Name, mergedSuffix); ok && s.nodes[of] != nil {
			s.nodes[of].merged = s.nodes[info.Name]
		}
	}
	return folder.Sweep(filepath.Join(root, "snapshots"), known)
}

// Prepare makes the active snapshot key on parent, empty for none.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string) error {
	base, err := s.base(ctx, parent)
	if err != nil {
		return err
	}
	return s.prepare(key, base)
}

func (s *Snapshotter) prepare(key string, base *node) error {
	made := s.making(key, base.nameOrEmpty())
	if err := s.meta.update(made.write); err != nil {
		return err
	}
	n := &node{name: key, parent: base, dir: made.dir, active: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[key] = n
	return nil
}

// making is an active snapshot that is made in a transaction.
type making struct {
	write
	// dir is the folder of its files once it is made.
	dir string
}

func (s *Snapshotter) making(key, parent string) *making {
	m := &making{}
	m.do = func(ctx context.Context) error {
		mounts, err := s.inner.Prepare(ctx, key, parent)
		if err != nil {
			return err
		}
		m.dir = upperDir(mounts)
		return nil
	}
	// Its number is given to another one then, which has to find the place free.
	m.undo = func() error { return os.RemoveAll(filepath.Dir(m.dir)) }
	return m
}

func (n *node) nameOrEmpty() string {
	if n == nil {
		return ""
	}
	return n.name
}

// upperDir returns where the files of a fresh active snapshot are.
func upperDir(mounts []mount.Mount) string {
	m := mounts[0]
	for _, o := range m.Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir
		}
	}
	return m.Source
}

// PrepareDetached makes an active snapshot that CommitOn gives a parent to, and returns its upper
// folder, empty.
func (s *Snapshotter) PrepareDetached(_ context.Context, key string) (dir string, xattrs layer.XattrPrefix, err error) {
	if err := s.prepare(key, nil); err != nil {
		return "", "", err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes[key].dir, s.xattrs, nil
}

// CommitOn is Commit of a snapshot that PrepareDetached has made, on the committed one parent.
func (s *Snapshotter) CommitOn(ctx context.Context, name, key, parent string) error {
	base, err := s.base(ctx, parent)
	if err != nil {
		return err
	}
	_, usage, err := s.measure(ctx, key)
	if err != nil {
		return err
	}
	if err := s.meta.update(commit(name, key, usage, snapshots.WithParent(base.nameOrEmpty()))); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := *s.nodes[key]
	n.name, n.active, n.parent = name, false, base
	delete(s.nodes, key)
	s.nodes[name] = &n
	return nil
}

func (s *Snapshotter) renamed(name, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := *s.nodes[key]
	n.name, n.active = name, false
	delete(s.nodes, key)
	s.nodes[name] = &n
}

// CommitPrepare is Commit followed by Prepare of next on the result, in one transaction where
// that can be.
func (s *Snapshotter) CommitPrepare(ctx context.Context, name, key, next string) (committed bool, err error) {
	n, usage, err := s.measure(ctx, key)
	if err != nil {
		return false, err
	}
	if n.full() {
		if err := s.meta.update(commit(name, key, usage, n.ownSize()...)); err != nil {
			return false, err
		}
		s.renamed(name, key)
		return true, s.Prepare(ctx, next, name)
	}
	made := s.making(next, name)
	if err := s.meta.update(commit(name, key, usage, n.ownSize()...).then(made.write)); err != nil {
		return false, err
	}
	s.renamed(name, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[next] = &node{name: next, parent: s.nodes[name], dir: made.dir, active: true}
	return true, nil
}

// Remove makes snapshots unknown, all or none, in the order given. Their space is freed by
// Cleanup. A snapshot that another one is stacked on is not removed: the error is a failed
// precondition.
func (s *Snapshotter) Remove(_ context.Context, keys ...string) error {
	s.mu.RLock()
	var names []string
	for _, key := range keys {
		n := s.nodes[key]
		if n == nil {
			s.mu.RUnlock()
			return fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
		}
		if n.merged != nil {
			names = append(names, n.merged.name)
		}
		names = append(names, key)
	}
	s.mu.RUnlock()
	err := s.meta.update(write{do: func(ctx context.Context) error {
		for _, name := range names {
			if err := s.inner.Remove(ctx, name); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		delete(s.nodes, name)
	}
	return nil
}

// Cleanup frees the space of removed snapshots, and of what a crash left behind.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	err := s.inner.(snapshots.Cleaner).Cleanup(ctx)
	if errdefs.IsNotFound(err) { // nothing has ever been stored
		return nil
	}
	return err
}

// Mounts returns the mounts of an active snapshot, for writing.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	ms, err := s.inner.Mounts(ctx, key)
	if err != nil || !s.volatile {
		return ms, err
	}
	for i := range ms {
		if err := makeVolatile(&ms[i]); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", key, err)
		}
	}
	return ms, nil
}

// Tree returns the mounts that show a snapshot read-only. An active one may be shown if nobody
// writes into it meanwhile.
func (s *Snapshotter) Tree(_ context.Context, key string) ([]mount.Mount, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.nodes[key]
	if n == nil {
		return nil, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
	}
	if err := there(n); err != nil {
		return nil, err
	}
	dirs := n.top().dirs()
	if len(dirs) == 1 {
		return []mount.Mount{{Type: "bind", Source: dirs[0], Options: []string{"ro", "rbind"}}}, nil
	}
	options := append([]string{"ro", "lowerdir=" + strings.Join(dirs, ":")}, s.options...)
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}, nil
}

// top returns the node to stack on instead of n. The caller holds Snapshotter.mu.
func (n *node) top() *node {
	if n.merged != nil {
		return n.merged
	}
	return n
}

// dirs returns the folders of the stack that ends in n, the uppermost first.
func (n *node) dirs() []string {
	var dirs []string
	for ; n != nil; n = n.parent {
		dirs = append(dirs, n.dir)
	}
	return dirs
}

// Diff writes the layer of a snapshot, what it changes in its parent, as a tar archive.
func (s *Snapshotter) Diff(ctx context.Context, l merge.Layer, w io.Writer) error {
	upper, err := s.upper(l)
	if err != nil {
		return err
	}
	return layer.WriteUpper(ctx, w, upper)
}

// Usage returns what the layer of a snapshot takes on disk, its parents and files of other snapshots
// not counted.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	s.mu.RLock()
	n := s.nodes[key]
	s.mu.RUnlock()
	if n != nil && n.own != nil {
		return snapshots.Usage{Size: *n.own}, nil
	}
	return s.inner.Usage(ctx, key)
}

// Parents returns the name of every committed snapshot with that of its parent, empty for none,
// and the same of every active one.
func (s *Snapshotter) Parents() (committed, active map[string]string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	committed, active = map[string]string{}, map[string]string{}
	for name, n := range s.nodes {
		switch {
		case n.level > 0:
		case n.active:
			active[name] = n.parentName()
		default:
			committed[name] = n.parentName()
		}
	}
	return committed, active
}

// parentName returns the name of the snapshot that n was made on.
func (n *node) parentName() string {
	return strings.TrimSuffix(n.parent.nameOrEmpty(), mergedSuffix)
}

// Close ends the use of the folder.
func (s *Snapshotter) Close() error { return s.inner.Close() }
