//go:build linux

// Package tree shows the trees of a result as file systems that can be sent to a client or
// written into an archive, alone, in folders by platform, or one upon the other. It mounts trees
// and sends nothing; the exporters local and tar call it.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/snapshot"
)

// Tree is the tree of a part of a result.
type Tree struct {
	ID string
	FS fsutil.FS
	// Epoch is the time of all files, nil if they keep their own.
	Epoch *time.Time
}

// OpenAll opens the trees of all parts of a result. The caller calls release when it is done.
func OpenAll(ctx context.Context, res *exporter.Result, env exporter.Env, epoch exporter.Epoch) (trees []Tree, release func() error, err error) {
	parts, err := res.Parts(env.Platform)
	if err != nil {
		return nil, nil, err
	}
	var releases []func() error
	release = func() error {
		var errs []error
		for _, r := range releases {
			errs = append(errs, r())
		}
		return errors.Join(errs...)
	}
	for _, p := range parts {
		t := Tree{ID: p.ID, FS: empty{}}
		if t.Epoch, err = epoch.Time(res, p.ID); err != nil {
			return nil, nil, errors.Join(err, release())
		}
		if p.Ref != nil {
			dir, done, err := mount(ctx, p.Ref, env.Access)
			if err != nil {
				return nil, nil, errors.Join(err, release())
			}
			releases = append(releases, done)
			t.FS = dir
		}
		if t.FS, err = at(t.FS, t.Epoch); err != nil {
			return nil, nil, errors.Join(err, release())
		}
		trees = append(trees, t)
	}
	return trees, release, nil
}

func mount(ctx context.Context, ref *cache.Ref, acc cache.Access) (fsutil.FS, func() error, error) {
	m, err := ref.Mount(ctx, true, acc)
	if err != nil {
		return nil, nil, err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return nil, nil, err
	}
	local, err := filesync.NewFS(dir)
	if err != nil {
		return nil, nil, errors.Join(err, unmount())
	}
	return local, func() error { return errors.Join(local.Close(), unmount()) }, nil
}

// at gives all files of a tree one time.
func at(tree fsutil.FS, epoch *time.Time) (fsutil.FS, error) {
	if epoch == nil {
		return tree, nil
	}
	return fsutil.NewFilterFS(tree, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.ModTime = epoch.UnixNano()
		return fsutil.MapResultKeep
	}})
}

// Split puts every tree into a folder named after its platform.
func Split(trees []Tree) (fsutil.FS, error) {
	var dirs []fsutil.Dir
	for _, t := range trees {
		name := strings.ReplaceAll(t.ID, "/", "_")
		if name == "." || name == ".." || strings.ContainsAny(name, "\\\x00") {
			return nil, fmt.Errorf("platform %q cannot be the name of a directory", t.ID)
		}
		modTime := time.Now()
		if t.Epoch != nil {
			modTime = *t.Epoch
		}
		dirs = append(dirs, fsutil.Dir{FS: t.FS, Stat: &types.Stat{
			Path: name, Mode: uint32(fs.ModeDir | 0o755), ModTime: modTime.UnixNano(),
		}})
	}
	return fsutil.SubDirFS(dirs)
}

// empty is the empty tree.
type empty struct{}

func (empty) Walk(context.Context, string, fs.WalkDirFunc) error { return nil }

func (empty) Open(path string) (io.ReadCloser, error) {
	return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}
