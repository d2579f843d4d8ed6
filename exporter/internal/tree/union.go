//go:build linux

package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tonistiigi/fsutil"
)

// Union lays trees over each other. Folders may be in several of them, of which the first is
// shown; any other path that two of them have is an error.
func Union(ctx context.Context, trees []Tree) (fsutil.FS, error) {
	if len(trees) == 1 {
		return trees[0].FS, nil
	}
	u := &union{owner: map[string]int{}, trees: trees}
	for i, t := range trees {
		err := t.FS.Walk(ctx, "", func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			path = filepath.ToSlash(path)
			first, dup := u.owner[path]
			if !dup {
				u.owner[path] = i
				u.entries = append(u.entries, unionEntry{path, entry})
				return nil
			}
			if entry.IsDir() && u.dirs[path] {
				return nil
			}
			return fmt.Errorf("cannot overwrite %s from %s with %s when split option is disabled", path, trees[first].ID, t.ID)
		})
		if err != nil {
			return nil, err
		}
		u.noteDirs()
	}
	slices.SortFunc(u.entries, func(a, b unionEntry) int {
		return slices.Compare(strings.Split(a.path, "/"), strings.Split(b.path, "/"))
	})
	return u, nil
}

type union struct {
	trees   []Tree
	owner   map[string]int
	dirs    map[string]bool
	entries []unionEntry
}

type unionEntry struct {
	path  string
	entry fs.DirEntry
}

// noteDirs remembers which of the entries are folders.
func (u *union) noteDirs() {
	u.dirs = map[string]bool{}
	for _, e := range u.entries {
		if e.entry.IsDir() {
			u.dirs[e.path] = true
		}
	}
}

// Walk calls fn for everything below target, parents first.
func (u *union) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = strings.Trim(filepath.ToSlash(filepath.Clean("/"+target)), "/")
	skip := ""
	for _, e := range u.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		inside := target == "" || e.path == target || strings.HasPrefix(e.path, target+"/")
		if !inside || skip != "" && strings.HasPrefix(e.path, skip) {
			continue
		}
		switch err := fn(filepath.FromSlash(e.path), e.entry, nil); {
		case errors.Is(err, fs.SkipAll):
			return nil
		case errors.Is(err, fs.SkipDir) && e.entry.IsDir():
			skip = e.path + "/"
		case errors.Is(err, fs.SkipDir):
			skip = strings.TrimSuffix(e.path, filepath.Base(e.path))
			if skip == "" {
				return nil
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// Open opens a file.
func (u *union) Open(path string) (io.ReadCloser, error) {
	i, ok := u.owner[filepath.ToSlash(filepath.Clean(path))]
	if !ok {
		return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return u.trees[i].FS.Open(path)
}
