//go:build linux

// Package native keeps file trees as plain folders, each snapshot a whole copy of its parent, for
// file systems on which overlayfs cannot be used. It wraps containerd's native snapshotter.
//
// Copies are made outside of the snapshotter's transactions, so that one large tree does not
// hold up the others, and a snapshot does not depend on its parent's once it is made. Data is
// shared with the parent where the file system can do that.
//
// The package is used by package snapshot only. The folder given to New belongs to it alone. All
// methods may be called concurrently; what a caller must see to is that a snapshot is not removed
// while it is used, and that nobody writes into a committed one.
package native

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot/boltfile"
	"github.com/openbuildkit/buildkit/snapshot/internal/folder"
)

// Labels of a snapshot.
const (
	// parentLabel names the snapshot that was copied.
	parentLabel = "copied-from"
	// folderLabel is the name of the folder that has the files.
	folderLabel = "folder"
	// ownLabel has the bytes on disk of a snapshot whose files are those of others.
	ownLabel = "own-size"
)

// Snapshotter is a set of snapshots in one folder.
type Snapshotter struct {
	inner snapshots.Snapshotter
	// folders is where the trees are.
	folders string

	mu    sync.RWMutex
	nodes map[string]node
}

type node struct {
	parent string
	dir    string
	active bool
	// own is how many bytes of its files are not those of other snapshots, nil for all.
	own *int64
}

// New opens the snapshots below root, which is made if missing.
func New(ctx context.Context, root string) (*Snapshotter, error) {
	if err := boltfile.Check(filepath.Join(root, "metadata.db")); err != nil {
		return nil, err
	}
	inner, err := native.NewSnapshotter(root)
	if err != nil {
		return nil, err
	}
	s := &Snapshotter{inner: inner, folders: filepath.Join(root, "snapshots"), nodes: map[string]node{}}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read native snapshots: %w", err), inner.Close())
	}
	return s, nil
}

func (s *Snapshotter) load(ctx context.Context) error {
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
		n := node{parent: info.Labels[parentLabel], active: info.Kind == snapshots.KindActive}
		if name := info.Labels[folderLabel]; name != "" {
			n.dir = filepath.Join(s.folders, name)
		} else {
			mounts, err := s.inner.Mounts(ctx, info.Name)
			if err != nil {
				return err
			}
			n.dir = mounts[0].Source
		}
		if l := info.Labels[ownLabel]; l != "" {
			own, err := strconv.ParseInt(l, 10, 64)
			if err != nil {
				return fmt.Errorf("snapshot %s: size %q", info.Name, l)
			}
			n.own = &own
		}
		if err := restore(n.dir); err != nil {
			return err
		}
		s.nodes[info.Name] = n
		known[filepath.Base(n.dir)] = struct{}{}
	}
	return folder.Sweep(s.folders, known)
}

// restore undoes what a crash has left of a removal that was not committed: the folder was renamed
// already. One that is missing altogether is reported by who mounts it.
func restore(dir string) error {
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		return err
	}
	aside := filepath.Join(filepath.Dir(dir), folder.Removed+filepath.Base(dir))
	if err := os.Rename(aside, dir); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (s *Snapshotter) node(name string) (node, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, ok := s.nodes[name]
	if !ok {
		return node{}, fmt.Errorf("snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	return n, nil
}

// Prepare makes the active snapshot key as a copy of parent, empty for none.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string) error {
	var from node
	if parent != "" {
		var err error
		if from, err = s.node(parent); err != nil {
			return err
		}
	}
	mounts, err := s.inner.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{parentLabel: parent}))
	if err != nil {
		return err
	}
	n := node{parent: parent, dir: mounts[0].Source, active: true}
	if parent != "" {
		if err := copyTree(ctx, n.dir, from.dir); err != nil {
			err = fmt.Errorf("copy snapshot %s: %w", parent, err)
			return errors.Join(err, s.inner.Remove(context.WithoutCancel(ctx), key))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[key] = n
	return nil
}

func copyTree(ctx context.Context, dst, src string) error {
	err := fs.CopyDir(dst, src, fs.WithXAttrErrorHandler(func(dst, _, attr string, err error) error {
		// Attributes of the machine, such as SELinux labels, cannot be copied.
		log.G(ctx).WithError(err).Debugf("attribute %s of %s is not copied", attr, dst)
		return nil
	}))
	if err != nil {
		return err
	}
	return copyTimes(ctx, dst, src)
}

// copyTimes gives folders their times: those that were copied have the times of the last file in them.
func copyTimes(ctx context.Context, dst, src string) error {
	return filepath.WalkDir(src, func(p string, d iofs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: p, Err: err}
		}
		name, err := filepath.Rel(src, p)
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dst, name), []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Commit turns the active snapshot key into the committed one name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string) error {
	n, err := s.node(key)
	if err != nil {
		return err
	}
	labels := map[string]string{parentLabel: n.parent, folderLabel: filepath.Base(n.dir)}
	if n.own != nil {
		labels[ownLabel] = strconv.FormatInt(*n.own, 10)
	}
	if err := s.inner.Commit(ctx, name, key, snapshots.WithLabels(labels)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes, key)
	n.active = false
	s.nodes[name] = n
	return nil
}

// CommitPrepare is Commit followed by Prepare of next on the result.
func (s *Snapshotter) CommitPrepare(ctx context.Context, name, key, next string) (committed bool, err error) {
	if err := s.Commit(ctx, name, key); err != nil {
		return false, err
	}
	return true, s.Prepare(ctx, next, name)
}

// Remove removes snapshots one by one and frees their space.
func (s *Snapshotter) Remove(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := s.inner.Remove(ctx, key); err != nil {
			return err
		}
		s.mu.Lock()
		delete(s.nodes, key)
		s.mu.Unlock()
	}
	return nil
}

// Cleanup removes what a crash left behind.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	entries, err := os.ReadDir(s.folders)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), folder.Removed) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.folders, e.Name())); err != nil {
			log.G(ctx).WithError(err).Warn("cannot remove a left snapshot")
		}
	}
	return nil
}

// Mounts returns the mounts of an active snapshot, for writing.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return s.inner.Mounts(ctx, key)
}

// Tree returns the mounts that show a snapshot read-only.
func (s *Snapshotter) Tree(_ context.Context, key string) ([]mount.Mount, error) {
	n, err := s.node(key)
	if err != nil {
		return nil, err
	}
	if err := there(key, n); err != nil {
		return nil, err
	}
	return []mount.Mount{{Type: "bind", Source: n.dir, Options: []string{"ro", "rbind"}}}, nil
}

// Parents returns the name of every committed snapshot with that of its parent, empty for none,
// and the same of every active one.
func (s *Snapshotter) Parents() (committed, active map[string]string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	committed, active = map[string]string{}, map[string]string{}
	for name, n := range s.nodes {
		if n.active {
			active[name] = n.parent
		} else {
			committed[name] = n.parent
		}
	}
	return committed, active
}

// Close ends the use of the folder.
func (s *Snapshotter) Close() error { return s.inner.Close() }
