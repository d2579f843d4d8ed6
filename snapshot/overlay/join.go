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

	"github.com/openbuildkit/buildkit/snapshot/layer"
	"github.com/openbuildkit/buildkit/snapshot/merge"
)

// ownLabel has the bytes on disk of a snapshot whose files are those of others.
const ownLabel = "own-size"

// Join makes the active snapshot key: base with layers on top, linked into one folder.
func (s *Snapshotter) Join(ctx context.Context, key, base string, layers []merge.Layer) error {
	below, err := s.base(ctx, base)
	if err != nil {
		return err
	}
	return s.fill(ctx, key, below, func(dir string) (_ int64, err error) {
		t, err := merge.Open(dir, layer.Stack{Dirs: below.dirs(), Xattrs: s.xattrs})
		if err != nil {
			return 0, err
		}
		defer t.Close()
		if below != nil {
			if err := t.SetRoot(below.dir); err != nil {
				return 0, err
			}
		}
		for _, l := range layers {
			upper, err := s.upper(l)
			if err == nil {
				err = upper.Walk(ctx, t)
			}
			if err != nil {
				return 0, &merge.LayerError{Snapshot: l.Snapshot, Err: err}
			}
		}
		return t.Finish()
	})
}

// Compare makes the active snapshot key of what is in upper and not in lower.
func (s *Snapshotter) Compare(ctx context.Context, key, lower, upper string) (removed []string, err error) {
	from, err := s.stack(lower)
	if err != nil {
		return nil, err
	}
	to, err := s.stack(upper)
	if err != nil {
		return nil, err
	}
	err = s.fill(ctx, key, nil, func(dir string) (int64, error) {
		t, err := merge.Open(dir, layer.Stack{})
		if err != nil {
			return 0, err
		}
		defer t.Close()
		out := merge.Additions{Target: t}
		if err := layer.Compare(ctx, from, to, nil, &out); err != nil {
			return 0, err
		}
		removed = out.Removed
		return t.Finish()
	})
	return removed, err
}

// fill makes an active snapshot on a node and has its folder filled. The function returns how much
// of it is not shared.
func (s *Snapshotter) fill(ctx context.Context, key string, base *node, with func(dir string) (int64, error)) error {
	if err := s.prepare(key, base); err != nil {
		return err
	}
	s.mu.RLock()
	n := s.nodes[key]
	s.mu.RUnlock()
	own, err := with(n.dir)
	if err != nil {
		return errors.Join(err, s.Remove(context.WithoutCancel(ctx), key))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	filled := *n
	filled.own = &own
	s.nodes[key] = &filled
	return nil
}

// upper returns the layer of a committed snapshot.
func (s *Snapshotter) upper(l merge.Layer) (layer.Upper, error) {
	s.mu.RLock()
	n := s.nodes[l.Snapshot]
	s.mu.RUnlock()
	if n == nil {
		return layer.Upper{}, fmt.Errorf("snapshot %s: %w", l.Snapshot, errdefs.ErrNotFound)
	}
	if err := there(n); err != nil {
		return layer.Upper{}, err
	}
	return layer.Upper{Dir: n.dir, Lowers: n.parent.dirs(), Xattrs: s.xattrs, Removed: l.Removed}, nil
}

// stack returns the tree of a committed snapshot, empty for none.
func (s *Snapshotter) stack(name string) (layer.Stack, error) {
	if name == "" {
		return layer.Stack{Xattrs: s.xattrs}, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.nodes[name]
	if n == nil {
		return layer.Stack{}, fmt.Errorf("snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	if err := there(n); err != nil {
		return layer.Stack{}, &merge.LayerError{Snapshot: name, Err: err}
	}
	return layer.Stack{Dirs: n.top().dirs(), Xattrs: s.xattrs}, nil
}

// there makes sure that the files of a snapshot are on disk.
func there(n *node) error {
	_, err := os.Lstat(n.dir)
	if os.IsNotExist(err) {
		return fmt.Errorf("files of snapshot %s: %w", filepath.Base(n.name), errdefs.ErrNotFound)
	}
	return err
}

// ownSize returns the option that keeps with a snapshot how much of it is not shared.
func (n *node) ownSize() []snapshots.Opt {
	if n == nil || n.own == nil {
		return nil
	}
	return []snapshots.Opt{snapshots.WithLabels(map[string]string{ownLabel: strconv.FormatInt(*n.own, 10)})}
}
