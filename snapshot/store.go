//go:build linux

package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot/layer"
	"github.com/openbuildkit/buildkit/snapshot/merge"
	"github.com/openbuildkit/buildkit/snapshot/native"
	"github.com/openbuildkit/buildkit/snapshot/overlay"
)

// The names of snapshotters.
const (
	// Auto chooses Overlay where it works and else Native.
	Auto    = "auto"
	Overlay = "overlayfs"
	Native  = "native"
)

// Driver keeps snapshots on disk. Errors are those of containerd's snapshotters: not found,
// already exists, failed precondition.
type Driver interface {
	// Prepare makes the active snapshot key on the committed one parent, empty for none.
	Prepare(ctx context.Context, key, parent string) error
	// Commit turns the active snapshot key into the committed one name.
	Commit(ctx context.Context, name, key string) error
	// CommitPrepare is Commit, and Prepare of next on the result, with fewer writes to disk. It
	// may fail with the first part done.
	CommitPrepare(ctx context.Context, name, key, next string) (committed bool, err error)
	// Remove makes snapshots unknown, in the order given. Nothing may stand on one when its
	// turn comes. Space may be freed later, by Cleanup.
	Remove(ctx context.Context, keys ...string) error
	// Cleanup frees the space of all that has been removed, also before a crash.
	Cleanup(ctx context.Context) error
	// Mounts returns the mounts of an active snapshot for writing.
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	// Tree returns the mounts that show a snapshot read-only. An active one may be shown while
	// nobody writes into it. It makes no snapshot and costs no write to disk.
	Tree(ctx context.Context, key string) ([]mount.Mount, error)
	// Join makes the active snapshot key, complete: the tree of the committed snapshot base, empty for
	// none, with the changes of layers, lowest first. Their files are not copied. A folder that is
	// missing on disk is an error of its layer, see LayerError.
	Join(ctx context.Context, key, base string, layers []Layer) error
	// Compare makes the active snapshot key, complete and without a parent: what is in the tree of the
	// committed snapshot upper and not in that of lower (either empty for none). It returns the names
	// that are in lower only.
	Compare(ctx context.Context, key, lower, upper string) (removed []string, err error)
	// Diff writes the changes of a layer as a tar archive (see package layer).
	Diff(ctx context.Context, l Layer, w io.Writer) error
	// Usage returns the space taken by the snapshot's own layer. It walks an active one.
	Usage(ctx context.Context, key string) (snapshots.Usage, error)
	// Parents returns the names of all committed snapshots, each with that of the one it was
	// made on, empty for none; and the same for the active ones.
	Parents() (committed, active map[string]string)
	// Close ends the use. Nothing may be called any more.
	Close() error
}

// Layer is what a committed snapshot changes in its parent.
type Layer = merge.Layer

// LayerError says which snapshot a merge failed for.
type LayerError = merge.LayerError

// Detacher is a Driver that takes a layer before there is a tree that it stands on.
type Detacher interface {
	// PrepareDetached makes an active snapshot that has no parent yet, and returns the upper folder
	// of overlayfs, empty, that is to be filled, and where overlayfs keeps its marks.
	PrepareDetached(ctx context.Context, key string) (dir string, xattrs layer.XattrPrefix, err error)
	// CommitOn turns that snapshot into the committed one name on the committed one parent.
	CommitOn(ctx context.Context, name, key, parent string) error
}

// Detacher returns the Driver as one that takes layers before their parents, nil if it does not.
func (s *Store) Detacher() Detacher {
	d, _ := s.Driver.(Detacher)
	return d
}

// Store is the snapshots of one folder.
type Store struct {
	Driver
	name, reason string
	mounts       string
}

// Open opens the snapshots below root, a folder that belongs to them alone and is made if
// missing, with the named snapshotter. Mounts that an earlier process left below root are ended.
func Open(ctx context.Context, root, name string) (*Store, error) {
	name, reason, err := choose(root, name)
	if err != nil {
		return nil, err
	}
	s := &Store{name: name, reason: reason, mounts: filepath.Join(root, "mounts")}
	if err := cleanMounts(s.mounts); err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	if name == Overlay {
		s.Driver, err = overlay.New(ctx, dir)
	} else {
		s.Driver, err = native.New(ctx, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s snapshots in %s: %w", name, dir, err)
	}
	return s, nil
}

// choose returns the snapshotter to use and why.
func choose(root, name string) (chosen, reason string, err error) {
	switch name {
	case "", Auto:
	case Overlay:
		err := overlay.Supported(root)
		if errors.Is(err, unix.ENOSPC) && used(root, Overlay) {
			err = nil
		}
		if err != nil {
			return "", "", fmt.Errorf("snapshotter %s cannot be used below %s: %w", name, root, err)
		}
		return Overlay, "configured", nil
	case Native:
		return Native, "configured", nil
	default:
		return "", "", fmt.Errorf("unknown snapshotter %q, known are %s, %s and %s", name, Auto, Overlay, Native)
	}
	err = overlay.Supported(root)
	if err == nil {
		return Overlay, "overlayfs works below " + root, nil
	}
	if errors.Is(err, unix.ENOSPC) {
		// What is on the disk has to be found, or nobody could remove it.
		for _, name := range []string{Overlay, Native} {
			if used(root, name) {
				return name, fmt.Sprintf("it was used before below %s, and overlayfs cannot be tried: %v", root, err), nil
			}
		}
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EROFS) || errors.Is(err, os.ErrPermission) && os.Geteuid() == 0 {
		// Not a property of overlayfs: to go on with another snapshotter would hide all
		// that is cached until the fault is gone.
		return "", "", fmt.Errorf("try overlayfs below %s: %w", root, err)
	}
	return Native, fmt.Sprintf("overlayfs does not work below %s: %v", root, err), nil
}

// used tells whether there are snapshots of a snapshotter below root.
func used(root, name string) bool {
	_, err := os.Stat(filepath.Join(root, name))
	return err == nil
}

// Name returns the name of the snapshotter in use.
func (s *Store) Name() string { return s.name }

// Reason returns why it was chosen, for the log.
func (s *Store) Reason() string { return s.reason }

// MountDir is the folder below which MountTemp mounts trees. A Mountable of another package says by
// a method of this name that it belongs here too.
func (s *Store) MountDir() string { return s.mounts }

// Mountable returns a snapshot, named by key, as something to mount; see Driver.Mounts and
// Driver.Tree. The function release, if not nil, is called when a mount made of it ends.
func (s *Store) Mountable(ctx context.Context, key string, readonly bool, release func() error) Mountable {
	ctx = context.WithoutCancel(ctx)
	get := s.Mounts
	if readonly {
		get = s.Tree
	}
	return &mountable{
		dir:     s.mounts,
		mounts:  func() ([]mount.Mount, error) { return get(ctx, key) },
		release: release,
	}
}

type mountable struct {
	dir     string
	mounts  func() ([]mount.Mount, error)
	release func() error
}

func (m *mountable) Mount() ([]mount.Mount, func() error, error) {
	mounts, err := m.mounts()
	if err != nil {
		return nil, nil, err
	}
	release := m.release
	if release == nil {
		release = func() error { return nil }
	}
	return mounts, release, nil
}

// MountDir is where MountTemp mounts it.
func (m *mountable) MountDir() string { return m.dir }
