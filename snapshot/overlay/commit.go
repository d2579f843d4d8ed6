//go:build linux

package overlay

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// Commit turns the active snapshot key into the committed one name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string) error {
	n, usage, err := s.measure(ctx, key)
	if err != nil {
		return err
	}
	if err := s.meta.update(commit(name, key, usage, n.ownSize()...)); err != nil {
		return err
	}
	s.renamed(name, key)
	return nil
}

// measure returns an active snapshot and what its folder takes on disk. That of a folder of links is
// known already. Others are walked through, which can take long, so it is done before the transaction
// that commits them: it would keep all other writers waiting.
func (s *Snapshotter) measure(ctx context.Context, key string) (*node, snapshots.Usage, error) {
	s.mu.RLock()
	n := s.nodes[key]
	s.mu.RUnlock()
	if n == nil {
		return nil, snapshots.Usage{}, fmt.Errorf("snapshot %s: %w", key, errdefs.ErrNotFound)
	}
	usage, err := n.usage(ctx)
	return n, usage, err
}

func (n *node) usage(ctx context.Context) (snapshots.Usage, error) {
	if n.own != nil {
		return snapshots.Usage{Size: *n.own}, nil
	}
	usage, err := fs.DiskUsage(ctx, n.dir)
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("size of snapshot %s: %w", n.name, err)
	}
	return snapshots.Usage(usage), nil
}

// commit is what a commit changes in the database. containerd's own would measure the folder meanwhile.
func commit(name, key string, usage snapshots.Usage, opts ...snapshots.Opt) write {
	return write{do: func(ctx context.Context) error {
		if _, err := storage.CommitActive(ctx, key, name, usage, opts...); err != nil {
			return fmt.Errorf("commit snapshot %s: %w", key, err)
		}
		return nil
	}}
}
