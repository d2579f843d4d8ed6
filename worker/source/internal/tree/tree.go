//go:build linux

// Package tree makes the trees of sources that are no images: filled by a function, or holding a
// single file, of a server or of a repository of images, which an op says what it is to be like.
package tree

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/snapshot"
)

// New returns a tree of what fill makes in the folder that it gets. Nothing is left of a tree that
// could not be filled; the error of fill is returned with what went wrong besides.
func New(ctx context.Context, trees *cache.Manager, acc cache.Access, desc cache.Description, fill func(dir string) error) (*cache.Ref, error) {
	ref, err := trees.New(ctx, nil, acc, cache.NewOpt{Description: desc})
	if err != nil {
		return nil, err
	}
	m, err := ref.Mount(ctx, false)
	if err == nil {
		err = snapshot.WithMount(m, fill)
	}
	if err != nil {
		return nil, errors.Join(err, ref.Discard(context.WithoutCancel(ctx)))
	}
	return ref.Commit(ctx)
}

// OpenFile opens the file of a tree that holds it alone, for fn.
func OpenFile(ctx context.Context, ref *cache.Ref, fn func(*os.File) error) error {
	m, err := ref.Mount(ctx, true, cache.Access{})
	if err != nil {
		return err
	}
	return snapshot.WithMount(m, func(dir string) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		if len(entries) != 1 {
			return fmt.Errorf("a tree of one file holds %d", len(entries))
		}
		f, err := os.OpenInRoot(dir, entries[0].Name())
		if err != nil {
			return err
		}
		defer f.Close()
		return fn(f)
	})
}
