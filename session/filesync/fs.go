package filesync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// LocalFS is a directory of the local system as an fsutil.FS, for Send and Provider. Its
// descriptions carry change tokens, and its files are opened beneath the directory. Sockets are
// left out.
type LocalFS struct {
	path string
	root *tree
}

// NewFS returns the directory at path. The caller closes it.
func NewFS(path string) (*LocalFS, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	root, err := openTree(path)
	if err != nil {
		return nil, err
	}
	return &LocalFS{path: path, root: root}, nil
}

// Close frees the directory's handle. Files that are open stay so.
func (l *LocalFS) Close() error { return l.root.Close() }

// Open opens a file for reading. It does not wait for the other end of a named pipe.
func (l *LocalFS) Open(path string) (io.ReadCloser, error) {
	p := filepath.ToSlash(filepath.Clean(path))
	p = strings.TrimPrefix(p, "/")
	d, name, err := l.root.at(p)
	if err != nil {
		return nil, err
	}
	defer d.release()
	return d.root.OpenFile(name, os.O_RDONLY|openNonblock, 0)
}

// Walk calls fn for the entry target, unless it is the root, and for all below it.
func (l *LocalFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	w := walker{base: l.path, fn: fn, links: map[inode]string{}, racy: time.Now().Add(-tokenGrace).UnixNano()}
	target = strings.TrimPrefix(filepath.Clean(string(filepath.Separator)+target), string(filepath.Separator))
	var err error
	if target == "" {
		err = w.dir(ctx, "")
	} else {
		var info fs.FileInfo
		if info, err = os.Lstat(filepath.Join(l.path, target)); err == nil {
			err = w.entry(ctx, target, fs.FileInfoToDirEntry(info))
		} else {
			err = fn(target, nil, err)
		}
	}
	if err == fs.SkipDir || err == fs.SkipAll {
		return nil
	}
	return err
}

// tokenGrace is how long ago a file must have changed for its change time to be told from that of
// a change that comes after; file systems store it in steps of up to a clock tick.
const tokenGrace = 50 * time.Millisecond

// inode identifies a file of the system.
type inode struct{ dev, ino uint64 }

type walker struct {
	base  string
	fn    fs.WalkDirFunc
	links map[inode]string // first path of each file with several
	racy  int64            // change times from here on are not trusted; ns
}

// dir visits what is in a directory.
func (w *walker) dir(ctx context.Context, rel string) error {
	entries, err := os.ReadDir(filepath.Join(w.base, rel))
	if err != nil && rel == "" {
		return err
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		info, lerr := os.Lstat(filepath.Join(w.base, rel))
		if lerr != nil {
			return nil
		}
		entry, derr := w.describe(rel, info)
		if derr != nil {
			return derr
		}
		return skipped(w.fn(rel, entry, err))
	}
	for _, e := range entries {
		if err := w.entry(ctx, filepath.Join(rel, e.Name()), e); err != nil {
			return skipped(err)
		}
	}
	return nil
}

// skipped takes the end of a directory for no error.
func skipped(err error) error {
	if err == fs.SkipDir {
		return nil
	}
	return err
}

// entry visits an entry and what is below it. It returns fs.SkipDir if the rest of the directory
// that it is in is not wanted.
func (w *walker) entry(ctx context.Context, rel string, e fs.DirEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.Type()&fs.ModeSocket != 0 {
		return nil
	}
	info, err := e.Info()
	if err == nil {
		var entry fs.DirEntry
		if entry, err = w.describe(rel, info); err == nil {
			err = w.fn(rel, entry, nil)
			if err == fs.SkipDir && info.IsDir() {
				return nil
			}
			if err == nil && info.IsDir() {
				err = w.dir(ctx, rel)
			}
			return err
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone since the directory was read
	}
	return err
}

// describe returns an entry with its description.
func (w *walker) describe(rel string, info fs.FileInfo) (fs.DirEntry, error) {
	full := filepath.Join(w.base, rel)
	st := &types.Stat{Path: rel, Mode: uint32(info.Mode()), ModTime: info.ModTime().UnixNano()}
	if !info.IsDir() {
		st.Size = info.Size()
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(full)
		if err != nil {
			return nil, err
		}
		st.Linkname = link
	}
	if err := describeSystem(w, full, info, st); err != nil {
		return nil, fmt.Errorf("describe %s: %w", full, err)
	}
	return &fsutil.DirEntryInfo{Stat: st}, nil
}

// firstPath returns the path under which a file with several was seen first, empty for the first.
func (w *walker) firstPath(id inode, rel string) string {
	first, ok := w.links[id]
	if !ok {
		w.links[id] = filepath.ToSlash(rel)
	}
	return first
}
