//go:build linux

package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot/layer"
	"github.com/openbuildkit/buildkit/snapshot/merge"
)

// Long chains.
//
// When a snapshot is made on a stack whose uppermost fanIn layers are all of level 0, these are
// merged into one layer of level 1, and what is stacked next stands on that. When fanIn layers of
// level 1 have come together they become one of level 2, and so on, as digits carry in a number
// written to the base fanIn. A stack of n layers has then less than fanIn layers of each of
// log(n) levels, and each file is linked once per level: the cost of a chain is linear in its
// length for all practical lengths.
//
// Files are hard links: layers are never written again once committed, so an inode may be in
// several of them. The layers merged stay as they are, for their diffs and for other chains. A
// merged layer is a snapshot of its own, named after the snapshot it stands for and removed with it.

const (
	// fanIn is more than the 127 layers an image may have, so that ordinary builds never merge,
	// and keeps the stack of a chain of 1,000,000 layers (three levels) below 500.
	fanIn = 128

	mergedSuffix  = "~merged"
	mergingSuffix = "~merging"
	levelLabel    = "merged-level"
)

// full reports whether a snapshot on n would first merge layers below it.
func (n *node) full() bool {
	count := 0
	for ; n != nil && n.level == 0; n = n.parent {
		if count++; count == fanIn {
			return true
		}
	}
	return false
}

// base returns the node to stack on for a new snapshot on parent.
func (s *Snapshotter) base(ctx context.Context, parent string) (*node, error) {
	if parent == "" {
		return nil, nil
	}
	s.mu.RLock()
	n := s.nodes[parent]
	if n != nil {
		n = n.top()
	}
	s.mu.RUnlock()
	if n == nil {
		return nil, fmt.Errorf("snapshot %s: %w", parent, errdefs.ErrNotFound)
	}
	if !n.full() {
		return n, nil
	}
	return s.merge(ctx, parent)
}

// merge makes the merged layer of the snapshot name.
func (s *Snapshotter) merge(ctx context.Context, name string) (*node, error) {
	s.merging.Lock()
	defer s.merging.Unlock()
	s.mu.RLock()
	n := s.nodes[name]
	s.mu.RUnlock()
	if n == nil {
		return nil, fmt.Errorf("snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	if n.merged != nil {
		return n.merged, nil
	}
	m, err := s.mergeLayers(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("merge the layers of snapshot %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[m.name] = m
	n.merged = m
	return m, nil
}

func (s *Snapshotter) mergeLayers(ctx context.Context, n *node) (_ *node, err error) {
	dirs, below, level := carry(n)
	active := n.name + mergingSuffix
	made := s.making(active, below.nameOrEmpty())
	if err := s.meta.update(made.write); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.inner.Remove(context.WithoutCancel(ctx), active))
		}
	}()
	m := &node{name: n.name + mergedSuffix, parent: below, dir: made.dir, level: level}
	if err := mergeDirs(ctx, m.dir, dirs, below == nil, s.xattrs); err != nil {
		return nil, err
	}
	usage, err := m.usage(ctx)
	if err != nil {
		return nil, err
	}
	labels := snapshots.WithLabels(map[string]string{levelLabel: strconv.Itoa(level)})
	if err := s.meta.update(commit(m.name, active, usage, labels)); err != nil {
		return nil, err
	}
	return m, nil
}

// carry returns the folders to merge, uppermost first, what stands below them, and the level of
// the result.
func carry(n *node) (dirs []string, below *node, level int) {
	for {
		count := 0
		at := n
		var run []string
		for ; at != nil && at.level == level; at = at.parent {
			run = append(run, at.dir)
			count++
		}
		// The layer made so far is one more of this level, except at level 0.
		if level > 0 && count+1 < fanIn {
			return dirs, n, level
		}
		dirs, n = append(dirs, run...), at
		level++
	}
}

// mergeDirs fills dst with what the stack of layers, uppermost first, shows. Whiteouts and opaque
// folders are kept, since there may be layers below; bottom says that there are none.
func mergeDirs(ctx context.Context, dst string, layers []string, bottom bool, xattrs layer.XattrPrefix) error {
	if err := layer.CopyMetadata(dst, layers[0]); err != nil {
		return err
	}
	m := merger{dst: dst, bottom: bottom, xattrs: xattrs}
	return m.dir(ctx, ".", layers)
}

type merger struct {
	dst    string
	bottom bool
	xattrs layer.XattrPrefix
}

// dir merges the folder rel of the layers that take part in it.
func (m *merger) dir(ctx context.Context, rel string, layers []string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	seen := map[string]struct{}{}
	for i, l := range layers {
		entries, err := os.ReadDir(filepath.Join(l, rel))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, ok := seen[e.Name()]; ok {
				continue
			}
			seen[e.Name()] = struct{}{}
			if err := m.entry(ctx, filepath.Join(rel, e.Name()), layers[i:]); err != nil {
				return err
			}
		}
	}
	return copyTimes(filepath.Join(m.dst, rel), filepath.Join(layers[0], rel))
}

// entry merges what is called rel; the first of the layers has it.
func (m *merger) entry(ctx context.Context, rel string, layers []string) error {
	src := filepath.Join(layers[0], rel)
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		if m.bottom && layer.IsWhiteout(st) {
			return nil
		}
		_, err := merge.Link(filepath.Join(m.dst, rel), src)
		return err
	}
	parts, opaque, err := m.parts(rel, layers)
	if err != nil {
		return err
	}
	dst := filepath.Join(m.dst, rel)
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	if err := layer.CopyMetadata(dst, src); err != nil {
		return err
	}
	if opaque && !m.bottom {
		if err := m.xattrs.SetOpaque(dst); err != nil {
			return err
		}
	}
	return m.dir(ctx, rel, parts)
}

// parts returns the layers whose folder rel is seen in the stack, and whether the folder hides
// what is below all of them.
func (m *merger) parts(rel string, layers []string) (parts []string, opaque bool, err error) {
	for _, l := range layers {
		p := filepath.Join(l, rel)
		st, err := os.Lstat(p)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			// A file or whiteout in place of a parent folder would have ended the
			// list of layers before.
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if !st.IsDir() {
			return parts, true, nil
		}
		parts = append(parts, l)
		if m.xattrs.IsOpaque(p) {
			return parts, true, nil
		}
	}
	return parts, false, nil
}

func copyTimes(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
