package filesync

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// LocalFS is a directory of the local system as an fsutil.FS, for Send and Provider. It may be used
// concurrently. Its
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

// Walk calls fn for the entry target, unless it is the root, and for all below it. That target is
// not there, or is not the directory that fn wants, is no error of the walk; other FS do the same.
func (l *LocalFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	w := walker{base: l.path, fn: fn, links: map[inode]string{}, start: time.Now().UnixNano()}
	target = strings.TrimPrefix(filepath.Clean(string(filepath.Separator)+target), string(filepath.Separator))
	err := w.target(ctx, target)
	if err == fs.SkipDir || err == fs.SkipAll || target != "" && notThere(err) {
		return nil
	}
	return err
}

// notThere tells whether a path leads nowhere, or through something that is no directory.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// tokenGrace is how long ago a file must have changed for its change time to be told from that of
// a change that comes after; file systems store it in steps of up to a clock tick. A file that has
// a token is read no sooner than that, so that what was read is told from what comes later.
const tokenGrace = 50 * time.Millisecond

// inode identifies a file of the system.
type inode struct{ dev, ino uint64 }

type walker struct {
	base  string
	fn    fs.WalkDirFunc
	links map[inode]string // first path of each file with several
	start int64            // change times from here on are not trusted; ns
}

// target visits the entry at rel, unless it is the root, and what is below it.
func (w *walker) target(ctx context.Context, rel string) error {
	if rel == "" {
		return w.dir(ctx, "")
	}
	parent, err := os.Open(filepath.Join(w.base, filepath.Dir(rel)))
	if err != nil {
		return w.fn(rel, nil, err)
	}
	defer parent.Close()
	err = w.entry(ctx, parent, rel)
	if notThere(err) {
		return w.fn(rel, nil, err)
	}
	return err
}

// dir visits what is in a directory.
func (w *walker) dir(ctx context.Context, rel string) error {
	d, err := os.Open(filepath.Join(w.base, rel))
	if err != nil {
		return err
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			continue
		}
		err := w.entry(ctx, d, filepath.Join(rel, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the directory was read
		}
		if err == fs.SkipDir {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entry visits an entry and what is below it. It returns fs.SkipDir if the rest of the directory
// that it is in is not wanted.
func (w *walker) entry(ctx context.Context, parent *os.File, rel string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	st, err := w.describe(parent, rel)
	if err != nil {
		return err
	}
	if err := w.fn(rel, dirEntry{st}, nil); err != nil {
		if err == fs.SkipDir && st.IsDir() {
			return nil
		}
		return err
	}
	if !st.IsDir() {
		return nil
	}
	err = w.dir(ctx, rel)
	if err != nil && isUnreadable(err, filepath.Join(w.base, rel)) {
		err = w.fn(rel, dirEntry{st}, err)
		if err == fs.SkipDir {
			return nil
		}
	}
	return err
}

// dirEntry is an entry of one walk. Who gets it may change the description.
type dirEntry struct{ st *types.Stat }

func (e dirEntry) Name() string               { return filepath.Base(e.st.Path) }
func (e dirEntry) IsDir() bool                { return e.st.IsDir() }
func (e dirEntry) Type() fs.FileMode          { return modeOf(e.st).Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return &fsutil.StatInfo{Stat: e.st}, nil }

// isUnreadable reports whether err says that the directory itself could not be read.
func isUnreadable(err error, path string) bool {
	var perr *fs.PathError
	return errors.As(err, &perr) && perr.Path == path
}

// firstPath returns the path under which a file with several was seen first, empty for the first.
func (w *walker) firstPath(id inode, rel string) string {
	first, ok := w.links[id]
	if !ok {
		w.links[id] = filepath.ToSlash(rel)
	}
	return first
}
