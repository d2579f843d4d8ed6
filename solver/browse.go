package solver

import (
	"context"
	"errors"
	"os"

	fstypes "github.com/tonistiigi/fsutil/types"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/browse"
)

// browse mounts the tree for reading and calls fn with it.
func (r *reference) browse(ctx context.Context, fn func(*browse.Tree) error) error {
	return r.use(ctx, func(ref *cache.Ref) (err error) {
		if ref == nil {
			empty, err := os.MkdirTemp("", "buildkit-empty")
			if err != nil {
				return err
			}
			defer os.Remove(empty)
			return withTree(empty, "", fn)
		}
		m, err := ref.Mount(ctx, true, cache.Access{Sessions: r.job.sessions, Blobs: r.job.sched})
		if err != nil {
			return err
		}
		root, release, err := snapshot.MountTemp(m)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		return withTree(root, "", fn)
	})
}

// withTree calls fn with the part of a tree that is mounted on dir.
func withTree(dir, part string, fn func(*browse.Tree) error) error {
	tree, err := browse.Open(dir, part)
	if err != nil {
		return err
	}
	defer tree.Close()
	return fn(tree)
}

// browser calls a function with a tree.
type browser func(func(*browse.Tree) error) error

func (b browser) readFile(req gateway.ReadRequest) (data []byte, err error) {
	err = b(func(t *browse.Tree) (err error) {
		data, err = t.ReadFile(req.Filename, (*browse.Range)(req.Range))
		return err
	})
	return data, err
}

func (b browser) readDir(req gateway.ReadDirRequest) (entries []*fstypes.Stat, err error) {
	err = b(func(t *browse.Tree) (err error) {
		entries, err = t.ReadDir(req.Path, req.IncludePattern)
		return err
	})
	return entries, err
}

func (b browser) statFile(path string) (st *fstypes.Stat, err error) {
	err = b(func(t *browse.Tree) (err error) {
		st, err = t.Stat(path)
		return err
	})
	return st, err
}
