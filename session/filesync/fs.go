package filesync

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// LocalFS is a directory of the local system as an fsutil.FS, for Send and Provider. It may be used
// concurrently. Its descriptions carry change tokens, and its files are opened beneath the directory. Sockets are
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
	h, err := l.open(filepath.ToSlash(filepath.Clean(path)))
	if err != nil {
		return nil, err
	}
	return h, nil
}

// open opens a file by a clean path with slashes.
func (l *LocalFS) open(p string) (*handle, error) {
	d, name, err := l.root.at(strings.TrimPrefix(p, "/"))
	if err != nil {
		return nil, err
	}
	defer d.release()
	return openAt(d, name)
}

// Walk calls fn for the entry target, unless it is the root, and for all below it. That target is
// not there, or is not the directory that fn wants, is no error of the walk; other FS do the same.
func (l *LocalFS) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = strings.TrimPrefix(filepath.Clean(string(filepath.Separator)+target), string(filepath.Separator))
	err := newWalker(l.path, fn).target(ctx, target)
	if err == fs.SkipDir || err == fs.SkipAll || target != "" && notThere(err) {
		return nil
	}
	return err
}

// notThere tells whether a path leads nowhere, or through something that is no directory.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// replaced tells whether a directory that was listed is no longer one.
func replaced(err error) bool { return notThere(err) || errors.Is(err, syscall.ELOOP) }

// tokenGrace is how long ago a file must have changed for its change time to be told from that of
// a change that comes after; file systems store it in steps of up to a clock tick. A file that has
// a token is read no sooner than that, so that what was read is told from what comes later.
const tokenGrace = 50 * time.Millisecond
