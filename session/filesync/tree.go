package filesync

import (
	"container/list"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// tree is a directory in which everything is done by way of handles, so that no path leads out
// of it. It keeps the handles of directories that were used last. It may be used concurrently.
type tree struct {
	root *os.Root
	// changing returns before anything is changed, with an error if that must not be.
	changing func() error

	mu     sync.Mutex
	open   map[string]*list.Element // of *dirHandle
	recent *list.List               // the last used is first
}

// openDirs bounds the handles that are kept.
const openDirs = 64

// dirHandle is an open directory. It is closed when it is neither kept nor used.
type dirHandle struct {
	tree *tree
	path string
	root *os.Root
	// self is the directory as a file, for what os.Root does not offer, and fd its descriptor.
	self *os.File
	fd   int
	// fresh is what files become that are made here; nil until one was.
	fresh atomic.Pointer[freshFile]
	refs  int // guarded by tree.mu; being kept counts as one
}

func openTree(path string) (*tree, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &tree{root: root, changing: func() error { return nil }, open: map[string]*list.Element{}, recent: list.New()}, nil
}

// Close closes all handles that are not in use.
func (t *tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.recent.Len() > 0 {
		t.evict(t.recent.Back())
	}
	return t.root.Close()
}

// at returns the handle of the directory of p, and the name of p in it, to change something there.
func (t *tree) at(p string) (*dirHandle, string, error) {
	if err := t.changing(); err != nil {
		return nil, "", err
	}
	parent := parentOf(p)
	d, err := t.dir(parent)
	if parent != "" {
		p = p[len(parent)+1:]
	}
	return d, p, err
}

// dir returns the handle of a directory, empty being the root. The caller releases it.
func (t *tree) dir(p string) (*dirHandle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.open[p]; ok {
		t.recent.MoveToFront(e)
		d := e.Value.(*dirHandle)
		d.refs++
		return d, nil
	}
	name := filepath.FromSlash(p)
	if p == "" {
		name = "."
	}
	root, err := t.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	d := &dirHandle{tree: t, path: p, root: root, self: self, fd: int(self.Fd()), refs: 2}
	t.open[p] = t.recent.PushFront(d)
	if t.recent.Len() > openDirs {
		t.evict(t.recent.Back())
	}
	return d, nil
}

func (t *tree) evict(e *list.Element) {
	d := t.recent.Remove(e).(*dirHandle)
	delete(t.open, d.path)
	t.unref(d)
}

func (t *tree) unref(d *dirHandle) {
	if d.refs--; d.refs == 0 {
		d.self.Close()
		d.root.Close()
	}
}

// forget drops the handles of a directory that is about to go, and of those below it.
func (t *tree) forget(p string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.recent.Front(); e != nil; {
		next := e.Next()
		if q := e.Value.(*dirHandle).path; q == p || len(q) > len(p) && q[:len(p)] == p && q[len(p)] == '/' {
			t.evict(e)
		}
		e = next
	}
}

func (d *dirHandle) release() {
	d.tree.mu.Lock()
	defer d.tree.mu.Unlock()
	d.tree.unref(d)
}

// remove removes a path and all below it, if it is there.
func (t *tree) remove(p string) error {
	if err := t.changing(); err != nil {
		return err
	}
	t.forget(p)
	return t.root.RemoveAll(filepath.FromSlash(p))
}

// mkdir makes sure that p is a directory. What else is there is removed.
func (t *tree) mkdir(p string) error {
	d, name, err := t.at(p)
	if err != nil {
		return err
	}
	defer d.release()
	return d.make(name, func() error { return d.root.Mkdir(name, 0o700) }, func(info fs.FileInfo) bool { return info.IsDir() })
}

// make creates an entry with fn. If something is there already, it may be kept, or is removed.
func (d *dirHandle) make(name string, fn func() error, keep func(fs.FileInfo) bool) error {
	err := fn()
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, lerr := d.root.Lstat(name)
	if lerr == nil && keep(info) {
		return nil
	}
	if err := d.removeAll(name); err != nil {
		return err
	}
	return fn()
}

func keepNothing(fs.FileInfo) bool { return false }

func (d *dirHandle) removeAll(name string) error {
	d.tree.forget(d.join(name))
	return d.root.RemoveAll(name)
}

func (d *dirHandle) join(name string) string {
	if d.path == "" {
		return name
	}
	return d.path + "/" + name
}

// create opens a new file for writing. If name is taken the file gets another name, temp, from
// which it is to be renamed; a directory in its place is removed.
func (d *dirHandle) create(name string, perm fs.FileMode) (f *handle, temp string, err error) {
	f, err = createAt(d, name, perm)
	if !errors.Is(err, fs.ErrExist) {
		return f, "", err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, "", err
	}
	if info.IsDir() {
		if err := d.removeAll(name); err != nil {
			return nil, "", err
		}
		f, err = createAt(d, name, perm)
		return f, "", err
	}
	for {
		temp = ".tmp-" + strconv.FormatUint(rand.Uint64(), 36)
		f, err = createAt(d, temp, perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, temp, err
		}
	}
}
