//go:build linux

package layer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Sink takes the changes of a layer, in the order of an archive: names are sorted folder by folder,
// and each folder that something changes in comes before that.
type Sink interface {
	// Add takes a file, or a folder without what is in it, that is at file on disk, with its status.
	Add(name, file string, st *unix.Stat_t) error
	// Remove takes a name that is gone, with all that was in it.
	Remove(name string) error
}

// WriteChanges writes what Compare tells, as an archive, to w.
func WriteChanges(ctx context.Context, w io.Writer, lower, upper Stack, removed []string) error {
	out := newWriter(w)
	if err := Compare(ctx, lower, upper, removed, out); err != nil {
		return err
	}
	return out.close()
}

// Tree returns the plain tree of one folder, the empty one for the empty string.
func Tree(dir string) Stack {
	if dir == "" {
		return Stack{}
	}
	return Stack{Dirs: []string{dir}}
}

// Compare tells out what has to be done to the tree lower to get the tree upper. The names in removed
// are told to be gone too, each at its place; a folder of that name in upper takes nothing over from
// what it replaces.
//
// Files are the same if type, size, owner, mode, times, extended attributes and the names that they
// are linked to are; contents are read only where times have no fractions of a second and so prove
// nothing, and nothing is read of what is the same file on disk.
func Compare(ctx context.Context, lower, upper Stack, removed []string, out Sink) error {
	c := compare{ctx: ctx, lower: lower, upper: upper, removed: byFolder(removed), anew: setOf(removed), out: out}
	return c.dir("", lower.Dirs, upper.Dirs)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// byFolder sorts names into the folders they are in.
func byFolder(names []string) map[string][]string {
	folders := map[string][]string{}
	for _, name := range names {
		dir, base := path.Split(name)
		dir = path.Clean("/" + dir)[1:]
		folders[dir] = append(folders[dir], base)
	}
	for _, names := range folders {
		slices.Sort(names)
	}
	return folders
}

type compare struct {
	ctx          context.Context //nolint:containedctx // lives as long as the call that it came with
	lower, upper Stack
	removed      map[string][]string
	anew         map[string]bool
	out          Sink
	// pending are the folders on the way to the current entry that have not been told because
	// nothing in them has changed so far.
	pending []pendingDir
	// links, once needed, has all names of files with several, of either tree.
	links *[2]map[inode][]string
}

// dir compares the folder name, which is at the places old in one tree and now in the other.
func (c *compare) dir(name string, old, now []string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	var was, is []File
	var err error
	if !slices.Equal(old, now) {
		if was, err = c.lower.read(old); err != nil {
			return err
		}
		if is, err = c.upper.read(now); err != nil {
			return err
		}
	}
	gone := c.removed[name]
	for len(was)+len(is)+len(gone) > 0 {
		next := first(was, is, gone)
		var o, n *File
		if len(was) > 0 && was[0].Name == next {
			o, was = &was[0], was[1:]
		}
		if len(is) > 0 && is[0].Name == next {
			n, is = &is[0], is[1:]
		}
		if len(gone) > 0 && gone[0] == next {
			gone = gone[1:]
		}
		child := path.Join(name, next)
		switch {
		case n == nil:
			err = c.remove(child)
		case c.anew[child] && n.IsDir():
			if err = c.remove(child); err == nil {
				err = c.added(child, n)
			}
		case o == nil:
			err = c.added(child, n)
		default:
			err = c.kept(child, o, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// first returns the name that comes first.
func first(was, is []File, gone []string) string {
	names := append([]string(nil), gone[:min(1, len(gone))]...)
	for _, files := range [][]File{was, is} {
		if len(files) > 0 {
			names = append(names, files[0].Name)
		}
	}
	return slices.Min(names)
}

func (c *compare) remove(name string) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.out.Remove(name)
}

func (c *compare) added(name string, f *File) error {
	if err := c.add(name, f); err != nil || !f.IsDir() {
		return err
	}
	return c.dir(name, nil, f.dirs)
}

// kept handles a name that both trees have.
func (c *compare) kept(name string, old, now *File) error {
	same, err := c.same(old, now)
	if err != nil {
		return err
	}
	if !same {
		if err := c.add(name, now); err != nil || !now.IsDir() {
			return err
		}
		return c.dir(name, old.dirs, now.dirs)
	}
	if !now.IsDir() {
		return nil
	}
	depth := len(c.pending)
	c.pending = append(c.pending, pendingDir{name, now.Path, now.Stat})
	if err := c.dir(name, old.dirs, now.dirs); err != nil {
		return err
	}
	if len(c.pending) > depth {
		c.pending = c.pending[:depth]
	}
	return nil
}

// flush tells the folders that the next entry is in.
func (c *compare) flush() error {
	for _, d := range c.pending {
		if err := c.out.Add(d.name, d.file, d.st); err != nil {
			return err
		}
	}
	c.pending = c.pending[:0]
	return nil
}

func (c *compare) add(name string, f *File) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.out.Add(name, f.Path, f.Stat)
}

func (c *compare) same(f, g *File) (bool, error) {
	old, now := f.Stat, g.Stat
	if f.Path == g.Path || old.Ino == now.Ino && old.Dev == now.Dev && !g.IsDir() {
		return true, nil
	}
	if old.Mode != now.Mode || old.Uid != now.Uid || old.Gid != now.Gid || old.Rdev != now.Rdev || old.Mtim != now.Mtim {
		return false, nil
	}
	oldAttrs, err := xattrs(f.Path)
	if err != nil {
		return false, err
	}
	nowAttrs, err := xattrs(g.Path)
	if err != nil {
		return false, err
	}
	if !maps.Equal(oldAttrs, nowAttrs) {
		return false, nil
	}
	if g.IsDir() {
		return true, nil
	}
	if old.Size != now.Size {
		return false, nil
	}
	if linked, err := c.sameLinks(old, now); err != nil || !linked {
		return false, err
	}
	switch now.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return sameLink(f.Path, g.Path)
	case unix.S_IFREG:
		if now.Mtim.Nsec == 0 && now.Size > 0 {
			return sameContent(f.Path, g.Path)
		}
	}
	return true, nil
}

// sameLinks reports whether two files have the same names, each in its tree. Other trees may have
// names of them too, so that their numbers tell nothing.
func (c *compare) sameLinks(old, now *unix.Stat_t) (bool, error) {
	if old.Nlink == 1 && now.Nlink == 1 {
		return true, nil
	}
	if c.links == nil {
		c.links = &[2]map[inode][]string{{}, {}}
		for i, s := range []Stack{c.lower, c.upper} {
			if err := c.findLinks(s, "", s.Dirs, c.links[i]); err != nil {
				return false, err
			}
		}
	}
	a, b := c.links[0][inodeOf(old)], c.links[1][inodeOf(now)]
	return slices.Equal(a, b) || len(a) <= 1 && len(b) <= 1, nil
}

// findLinks gathers the names of all files below a folder that have several.
func (c *compare) findLinks(s Stack, name string, dirs []string, links map[inode][]string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	files, err := s.read(dirs)
	if err != nil {
		return err
	}
	for _, f := range files {
		child := path.Join(name, f.Name)
		if f.IsDir() {
			if err := c.findLinks(s, child, f.dirs, links); err != nil {
				return err
			}
		} else if f.Stat.Nlink > 1 {
			id := inodeOf(f.Stat)
			links[id] = append(links[id], child)
		}
	}
	return nil
}

func sameLink(a, b string) (bool, error) {
	x, err := os.Readlink(a)
	if err != nil {
		return false, err
	}
	y, err := os.Readlink(b)
	return x == y, err
}

func sameContent(a, b string) (bool, error) {
	f, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer f.Close()
	g, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := io.ReadFull(f, x)
		m, err2 := io.ReadFull(g, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err = errors.Join(err, err2); err != nil {
			return false, err
		}
	}
}
