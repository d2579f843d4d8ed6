//go:build linux

package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/openbuildkit/buildkit/snapshot/layer"
	"github.com/openbuildkit/buildkit/snapshot/merge"
)

// Join makes the active snapshot key: the files of base and, on top, those of layers, all linked.
func (s *Snapshotter) Join(ctx context.Context, key, base string, layers []merge.Layer) error {
	from, err := s.tree(base)
	if err != nil {
		return err
	}
	return s.fill(ctx, key, base, func(t *merge.Target) error {
		for _, dir := range from.Dirs {
			if err := t.SetRoot(dir); err != nil {
				return err
			}
		}
		if err := layer.Compare(ctx, layer.Stack{}, from, nil, t); err != nil {
			return err
		}
		for _, l := range layers {
			if err := s.walk(ctx, l, t); err != nil {
				return &merge.LayerError{Snapshot: l.Snapshot, Err: err}
			}
		}
		return nil
	})
}

// Compare makes the active snapshot key of what is in upper and not in lower.
func (s *Snapshotter) Compare(ctx context.Context, key, lower, upper string) (removed []string, err error) {
	from, err := s.tree(lower)
	if err != nil {
		return nil, err
	}
	to, err := s.tree(upper)
	if err != nil {
		return nil, err
	}
	err = s.fill(ctx, key, "", func(t *merge.Target) error {
		out := merge.Additions{Target: t}
		err := layer.Compare(ctx, from, to, nil, &out)
		removed = out.Removed
		return err
	})
	return removed, err
}

// fill makes an active snapshot and has its folder filled.
func (s *Snapshotter) fill(ctx context.Context, key, parent string, with func(*merge.Target) error) (err error) {
	mounts, err := s.inner.Prepare(ctx, key, "", snapshots.WithLabels(map[string]string{parentLabel: parent}))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.inner.Remove(context.WithoutCancel(ctx), key))
		}
	}()
	dir := mounts[0].Source
	t, err := merge.Open(dir, layer.Stack{})
	if err != nil {
		return err
	}
	defer t.Close()
	if err := with(t); err != nil {
		return err
	}
	own, err := t.Finish()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[key] = node{parent: parent, dir: dir, active: true, own: &own}
	return nil
}

// tree returns the tree of a snapshot, empty for none.
func (s *Snapshotter) tree(name string) (layer.Stack, error) {
	if name == "" {
		return layer.Stack{}, nil
	}
	n, err := s.node(name)
	if err == nil {
		err = there(name, n)
	}
	if err != nil {
		return layer.Stack{}, &merge.LayerError{Snapshot: name, Err: err}
	}
	return layer.Stack{Dirs: []string{n.dir}}, nil
}

// there makes sure that the files of a snapshot are on disk.
func there(name string, n node) error {
	_, err := os.Lstat(n.dir)
	if os.IsNotExist(err) {
		return fmt.Errorf("files of snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	return err
}

// walk tells out what a layer changes.
func (s *Snapshotter) walk(ctx context.Context, l merge.Layer, out layer.Sink) error {
	lower, upper, err := s.both(l.Snapshot)
	if err != nil {
		return err
	}
	return layer.Compare(ctx, lower, upper, l.Removed, out)
}

// both returns the tree of a snapshot and that of its parent.
func (s *Snapshotter) both(name string) (lower, upper layer.Stack, err error) {
	n, err := s.node(name)
	if err != nil {
		return lower, upper, err
	}
	if lower, err = s.tree(n.parent); err != nil {
		return lower, upper, err
	}
	upper, err = s.tree(name)
	return lower, upper, err
}

// Diff writes what a snapshot changes in its parent as a tar archive.
func (s *Snapshotter) Diff(ctx context.Context, l merge.Layer, w io.Writer) error {
	lower, upper, err := s.both(l.Snapshot)
	if err != nil {
		return err
	}
	return layer.WriteChanges(ctx, w, lower, upper, l.Removed)
}

// Usage returns what the whole tree of a snapshot takes on disk, without files of other snapshots
// that are linked.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	if n, err := s.node(key); err == nil && n.own != nil {
		return snapshots.Usage{Size: *n.own}, nil
	}
	return s.inner.Usage(ctx, key)
}
