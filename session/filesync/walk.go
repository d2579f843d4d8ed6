package filesync

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

const (
	// pageEntries is how many entries are described at once, pagesAhead how many pages the walk
	// may be ahead of who gets the entries.
	pageEntries = 64
	pagesAhead  = 16
	// maxDescribers bounds the goroutines that ask the system about entries.
	maxDescribers = 4
)

// inode identifies a file of the system.
type inode struct{ dev, ino uint64 }

// walker walks over a directory in three steps: one goroutine lists directories in the order of
// the walk and cuts the names into pages, some describe pages, and the caller gets the entries in
// order.
type walker struct {
	base  string
	fn    fs.WalkDirFunc
	start int64 // change times from here on are not trusted; ns

	pages chan *page // in order
	work  chan *page
	// skip is the last prefix that the caller does not want.
	skip atomic.Pointer[string]

	// Used by the caller's goroutine.
	links   map[inode]string // first path of each file with several
	lastDir *types.Stat
}

// page holds some entries of one directory, of which only the last may be a directory.
type page struct {
	prefix    string // of the paths: empty, or a directory and a separator
	dir       *walkDir
	names     []string
	lastIsDir bool
	entries   []described
	// err says why the directory that prefix names can't be read.
	err  error
	done chan struct{} // closed when entries are there
}

// described is what the system says of an entry.
type described struct {
	st *types.Stat
	// id is that of a file with several names.
	id  inode
	err error
}

// walkDir is an open directory; the last user closes it.
type walkDir struct {
	*os.File
	users atomic.Int32
}

func newWalkDir(f *os.File) *walkDir {
	d := &walkDir{File: f}
	d.users.Store(1)
	return d
}

func (d *walkDir) release() {
	if d.users.Add(-1) == 0 {
		d.Close()
	}
}

func newWalker(base string, fn fs.WalkDirFunc) *walker {
	return &walker{
		base: base, fn: fn, start: time.Now().UnixNano(), links: map[inode]string{},
		pages: make(chan *page, pagesAhead), work: make(chan *page, pagesAhead),
	}
}

// target visits the entry at rel, unless it is the root, and what is below it.
func (w *walker) target(ctx context.Context, rel string) error {
	if rel == "" {
		return w.below(ctx, "")
	}
	parent, err := os.Open(filepath.Join(w.base, filepath.Dir(rel)))
	if err != nil {
		return w.fn(rel, nil, err)
	}
	defer parent.Close()
	e := w.describe(parent, rel)
	if notThere(e.err) {
		return w.fn(rel, nil, e.err)
	}
	if e.err != nil {
		return e.err
	}
	w.lastDir = e.st
	if err := w.fn(rel, dirEntry{e.st}, nil); err != nil || !e.st.IsDir() {
		return err
	}
	return w.below(ctx, rel+string(filepath.Separator))
}

// below visits what is in the directory that prefix names.
func (w *walker) below(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		for range w.pages { // what nobody wants any more
		}
		wg.Wait()
	}()
	wg.Go(func() {
		defer close(w.pages)
		defer close(w.work)
		dir, err := os.Open(filepath.Join(w.base, prefix))
		w.list(ctx, dir, err, prefix)
	})
	for range min(runtime.GOMAXPROCS(0), maxDescribers) {
		wg.Go(func() { w.describePages(ctx) })
	}
	for p := range w.pages {
		<-p.done
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.emit(p); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// list makes the pages of a directory that was opened, or could not be, and of those below it.
func (w *walker) list(ctx context.Context, f *os.File, err error, prefix string) {
	var entries []fs.DirEntry
	if err == nil {
		dir := newWalkDir(f)
		defer dir.release()
		if entries, err = f.ReadDir(-1); err == nil {
			w.listEntries(ctx, dir, entries, prefix)
			return
		}
	}
	p := &page{prefix: prefix, err: err, done: make(chan struct{})}
	close(p.done)
	select {
	case w.pages <- p:
	case <-ctx.Done():
	}
}

func (w *walker) listEntries(ctx context.Context, dir *walkDir, entries []fs.DirEntry, prefix string) {
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	p := &page{prefix: prefix, dir: dir}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			continue
		}
		p.names = append(p.names, e.Name())
		if !e.IsDir() && len(p.names) < pageEntries {
			continue
		}
		p.lastIsDir = e.IsDir()
		if !w.push(ctx, p) {
			return
		}
		p = &page{prefix: prefix, dir: dir}
		below := prefix + e.Name() + string(filepath.Separator)
		if !e.IsDir() || w.skipped(below) {
			continue
		}
		child, err := openDirAt(dir.File, filepath.Join(w.base, prefix, e.Name()))
		if err != nil && replaced(err) {
			continue // gone since the directory was read
		}
		w.list(ctx, child, err, below)
	}
	if len(p.names) > 0 {
		w.push(ctx, p)
	}
}

// push has a page described. It returns false if nobody wants it.
func (w *walker) push(ctx context.Context, p *page) bool {
	if w.skipped(p.prefix) {
		return false
	}
	p.done = make(chan struct{})
	p.dir.users.Add(1)
	select {
	case w.work <- p:
	case <-ctx.Done():
		p.dir.release()
		return false
	}
	select {
	case w.pages <- p:
		return true
	case <-ctx.Done():
		return false
	}
}

func (w *walker) describePages(ctx context.Context) {
	for p := range w.work {
		if ctx.Err() == nil && !w.skipped(p.prefix) {
			p.entries = make([]described, len(p.names))
			for i, name := range p.names {
				p.entries[i] = w.describe(p.dir.File, p.prefix+name)
			}
		}
		p.dir.release()
		close(p.done)
	}
}

// skipped reports whether what is below prefix is not wanted.
func (w *walker) skipped(prefix string) bool {
	skip := w.skip.Load()
	return skip != nil && strings.HasPrefix(prefix, *skip)
}

// emit gives the entries of a page to the caller.
func (w *walker) emit(p *page) error {
	switch {
	case w.skipped(p.prefix):
		return nil
	case p.err != nil && p.prefix == "":
		return p.err
	case p.err != nil:
		if err := w.fn(strings.TrimSuffix(p.prefix, string(filepath.Separator)), dirEntry{w.lastDir}, p.err); err != fs.SkipDir {
			return err
		}
		return nil
	}
	for i, e := range p.entries {
		rel := p.prefix + p.names[i]
		wasDir := p.lastIsDir && i == len(p.entries)-1
		skipBelow := func() {
			prefix := rel + string(filepath.Separator)
			w.skip.Store(&prefix)
		}
		if errors.Is(e.err, fs.ErrNotExist) { // gone since the directory was read
			if wasDir {
				skipBelow()
			}
			continue
		}
		if e.err != nil {
			return e.err
		}
		if e.id != (inode{}) {
			e.st.Linkname = w.firstPath(e.id, rel)
		}
		err := w.fn(rel, dirEntry{e.st}, nil)
		if err == fs.SkipDir && !e.st.IsDir() {
			if p.prefix == "" {
				return err
			}
			w.skip.Store(&p.prefix)
			return nil
		}
		if err != nil && err != fs.SkipDir {
			return err
		}
		if err == fs.SkipDir || wasDir && !e.st.IsDir() {
			skipBelow()
		}
		if e.st.IsDir() {
			w.lastDir = e.st
		}
	}
	return nil
}

// dirEntry is an entry of one walk. Who gets it may change the description.
type dirEntry struct{ st *types.Stat }

func (e dirEntry) Name() string               { return filepath.Base(e.st.Path) }
func (e dirEntry) IsDir() bool                { return e.st.IsDir() }
func (e dirEntry) Type() fs.FileMode          { return modeOf(e.st).Type() }
func (e dirEntry) Info() (fs.FileInfo, error) { return &fsutil.StatInfo{Stat: e.st}, nil }

// firstPath returns the path under which a file with several was seen first, empty for the first.
func (w *walker) firstPath(id inode, rel string) string {
	first, ok := w.links[id]
	if !ok {
		w.links[id] = filepath.ToSlash(rel)
	}
	return first
}
