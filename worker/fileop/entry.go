package fileop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// place is an entry of a directory that is held open.
type place struct {
	dir  *os.File
	name string
	// path is where it is in its tree, for errors and links.
	path string
	st   unix.Stat_t
}

func (p *place) close() { p.dir.Close() }

func (p *place) fd() int { return int(p.dir.Fd()) }

func (p *place) err(op string, err error) error {
	return &fs.PathError{Op: op, Path: p.path, Err: err}
}

func (p *place) lstat() error {
	if err := unix.Fstatat(p.fd(), p.name, &p.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p.err("lstat", err)
	}
	return nil
}

func (p *place) kind() uint32 { return p.st.Mode & unix.S_IFMT }
func (p *place) isDir() bool  { return p.kind() == unix.S_IFDIR }
func (p *place) isFile() bool { return p.kind() == unix.S_IFREG }

// depth tells the entry that a copy begins with from those below it.
type depth bool

const (
	top   depth = true
	below depth = false
)

// entry copies from to to, and all below it that the patterns keep, and tells whether it made or
// kept anything. rel is the path below the copied entry; what is copied itself is always wanted.
func (c *copier) entry(from, to *place, rel string, d depth, inc, exc patternmatcher.MatchInfo) (kept bool, err error) {
	if c.ctx.Err() != nil {
		return false, context.Cause(c.ctx)
	}
	// Each level of directories is held open. Deeper ones have no path that a program could give.
	if len(from.path) >= unix.PathMax || len(to.path) >= unix.PathMax {
		return false, fmt.Errorf("copy %.100s...: %w", from.path, unix.ENAMETOOLONG)
	}
	kept = d == top && (c.include == nil || !from.isDir())
	if d == below {
		if kept, inc, exc, err = c.wanted(rel, inc, exc); err != nil {
			return false, err
		}
	}
	if from.isDir() {
		return c.directory(from, to, rel, d, kept, inc, exc)
	}
	if !kept {
		return false, nil
	}
	if err := c.clear(from, to); err != nil {
		return false, err
	}
	if linked, err := c.link(from, to); linked || err != nil {
		return true, err
	}
	switch from.kind() {
	case unix.S_IFREG:
		err = c.file(from, to)
	case unix.S_IFLNK:
		err = c.symlink(from, to)
	default:
		err = c.special(from, to)
	}
	if err != nil {
		return true, err
	}
	return true, c.finish(from, to, c.perm(from))
}

func (c *copier) wanted(rel string, inc, exc patternmatcher.MatchInfo) (bool, patternmatcher.MatchInfo, patternmatcher.MatchInfo, error) {
	want := true
	var err error
	if c.include != nil {
		if want, inc, err = c.include.MatchesUsingParentResults(rel, inc); err != nil {
			return false, inc, exc, err
		}
	}
	if c.exclude != nil {
		var out bool
		if out, exc, err = c.exclude.MatchesUsingParentResults(rel, exc); err != nil {
			return false, inc, exc, err
		}
		want = want && !out
	}
	return want, inc, exc, nil
}

// clear makes room for what is copied: a file, a link or a special file is replaced, a directory
// only if the action says so.
func (c *copier) clear(from, to *place) error {
	err := to.lstat()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if to.isDir() {
		if !c.a.AlwaysReplaceExistingDestPaths {
			return fmt.Errorf("cannot replace to directory %s with file", to.path)
		}
		return os.RemoveAll(path.Join(procPath(to.dir), to.name))
	}
	if err := unix.Unlinkat(to.fd(), to.name, 0); err != nil {
		return to.err("remove", err)
	}
	return nil
}

// link makes a further name of a file that was copied already.
func (c *copier) link(from, to *place) (bool, error) {
	if from.st.Nlink < 2 {
		return false, nil
	}
	ino := inode{uint64(from.st.Dev), from.st.Ino}
	first, ok := c.links[ino]
	if !ok {
		c.links[ino] = to.path
		return false, nil
	}
	dir, name, err := c.dst.Parent(first)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	if err := unix.Linkat(int(dir.Fd()), name, to.fd(), to.name, 0); err != nil {
		return false, to.err("link", err)
	}
	return true, nil
}

func (c *copier) file(from, to *place) error {
	in, err := openAt(from, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := openAt(to, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := copyData(c.ctx, out, in, from.st); err != nil {
		return to.err("write", err)
	}
	return out.Close()
}

func openAt(p *place, flags int, perm uint32) (*os.File, error) {
	fd, err := unix.Openat(p.fd(), p.name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return nil, p.err("open", err)
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// copyData copies the bytes of a file, by reference where the file system can and without the
// holes. A file that is shorter than it was when it was looked at is copied as it is.
func copyData(ctx context.Context, out, in *os.File, st unix.Stat_t) error {
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	if st.Blocks*512 >= st.Size {
		return copyRange(ctx, out, in, st.Size)
	}
	for at := int64(0); at < st.Size; {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return copyRange(ctx, out, in, st.Size)
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for _, f := range []*os.File{in, out} {
			if _, err := f.Seek(start, io.SeekStart); err != nil {
				return err
			}
		}
		if err := copyRange(ctx, out, in, end-start); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(st.Size)
}

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 64 << 20

func copyRange(ctx context.Context, out, in *os.File, n int64) error {
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		done, err := io.CopyN(out, in, min(n, copyChunk))
		n -= done
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) symlink(from, to *place) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from.fd(), from.name, buf)
	if err != nil {
		return from.err("readlink", err)
	}
	if err := unix.Symlinkat(string(buf[:n]), to.fd(), to.name); err != nil {
		return to.err("symlink", err)
	}
	return nil
}

func (c *copier) special(from, to *place) error {
	if err := unix.Mknodat(to.fd(), to.name, from.st.Mode&^0o7777|0o600, int(from.st.Rdev)); err != nil {
		return to.err("mknod", err)
	}
	return nil
}

// perm returns the permissions of the copy of an entry.
func (c *copier) perm(from *place) fs.FileMode {
	perm := fileMode(from.st.Mode)
	if c.mode == nil {
		return perm
	}
	return c.mode(perm | dirBit(from))
}

// finishTarget finishes the directory that was made for the contents of another: it is no copy of
// that and has nothing of it but the time.
func (c *copier) finishTarget(from, to *place) error {
	if err := stamp(to.dir, to.name, c.owner, -1); err != nil {
		return err
	}
	if err := unix.Fchmodat(to.fd(), to.name, unixPerm(c.madePerm(0o755)), 0); err != nil {
		return to.err("chmod", err)
	}
	return c.finishTime(from, to)
}

// finish gives a copy the owner, mode, attributes and time that it should have, in the order in
// which one does not undo the other.
func (c *copier) finish(from, to *place, perm fs.FileMode) error {
	owner := c.owner
	if owner == nil {
		owner = &Owner{UID: from.st.Uid, GID: from.st.Gid}
	}
	if err := stamp(to.dir, to.name, owner, -1); err != nil {
		return err
	}
	if from.kind() != unix.S_IFLNK {
		if err := unix.Fchmodat(to.fd(), to.name, unixPerm(perm), 0); err != nil {
			return to.err("chmod", err)
		}
	}
	copyXattrs(from, to)
	return c.finishTime(from, to)
}

// finishTime gives a copy its time: that of the action or of what was copied.
func (c *copier) finishTime(from, to *place) error {
	if c.a.Timestamp >= 0 {
		return setTime(to.dir, to.name, c.a.Timestamp)
	}
	ts := []unix.Timespec{from.st.Atim, from.st.Mtim}
	if err := unix.UtimesNanoAt(to.fd(), to.name, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return to.err("chtimes", err)
	}
	return nil
}

// dirBit lets a symbolic mode with X see directories.
func dirBit(p *place) fs.FileMode {
	if p.isDir() {
		return fs.ModeDir
	}
	return 0
}

// copyXattrs copies extended attributes where the file system takes them; not all do, and a build
// is not to fail for that.
func copyXattrs(from, to *place) {
	if from.kind() != unix.S_IFREG && from.kind() != unix.S_IFDIR {
		return
	}
	src := path.Join(procPath(from.dir), from.name)
	dst := path.Join(procPath(to.dir), to.name)
	size, err := unix.Llistxattr(src, nil)
	if err != nil || size == 0 {
		return
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(src, names); err != nil {
		return
	}
	for _, name := range splitNames(names[:size]) {
		n, err := unix.Lgetxattr(src, name, nil)
		if err != nil {
			continue
		}
		value := make([]byte, n)
		if n, err = unix.Lgetxattr(src, name, value); err != nil {
			continue
		}
		_ = unix.Lsetxattr(dst, name, value[:n], 0)
	}
}

func splitNames(b []byte) []string {
	var out []string
	for len(b) > 0 {
		i := slices.Index(b, 0)
		if i < 0 {
			break
		}
		out = append(out, string(b[:i]))
		b = b[i+1:]
	}
	return out
}

// directory copies what is in a directory. The directory itself is made when it is wanted, or
// when something in it is; one that was there before keeps its owner and mode if the copy began
// with it, and takes the time only.
func (c *copier) directory(from, to *place, rel string, d depth, kept bool, inc, exc patternmatcher.MatchInfo) (bool, error) {
	src, err := openAt(from, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer src.Close()
	entries, err := src.ReadDir(-1)
	if err != nil {
		return false, from.err("readdir", unwrap(err))
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	m := &maker{c: c, to: to}
	defer m.close()
	if kept || d == top {
		if err := m.make(); err != nil {
			return false, err
		}
	}
	for _, e := range entries {
		child := &place{dir: src, name: e.Name(), path: path.Join(from.path, e.Name())}
		if err := child.lstat(); err != nil {
			return false, err
		}
		childRel := path.Join(rel, e.Name())
		if m.dir == nil {
			// Nothing is made until something below is wanted.
			some, err := c.any(child, childRel, inc, exc)
			if err != nil {
				return false, err
			}
			if !some {
				continue
			}
			if err := m.make(); err != nil {
				return false, err
			}
		}
		some, err := c.entry(child, &place{dir: m.dir, name: e.Name(), path: path.Join(to.path, e.Name())}, childRel, below, inc, exc)
		if err != nil {
			return false, err
		}
		kept = kept || some
	}
	switch {
	case m.dir == nil:
		return kept, nil
	case d == top && !m.made:
		return kept, c.finishTime(from, to)
	}
	if d == top && c.a.DirCopyContents {
		return kept, c.finishTarget(from, to)
	}
	return kept, c.finish(from, to, c.perm(from))
}

// any tells whether an entry or anything below it is wanted.
func (c *copier) any(p *place, rel string, inc, exc patternmatcher.MatchInfo) (bool, error) {
	want, inc, exc, err := c.wanted(rel, inc, exc)
	if want || err != nil || !p.isDir() {
		return want, err
	}
	dir, err := openAt(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return false, p.err("readdir", unwrap(err))
	}
	for _, e := range entries {
		child := &place{dir: dir, name: e.Name(), path: path.Join(p.path, e.Name())}
		if err := child.lstat(); err != nil {
			return false, err
		}
		some, err := c.any(child, path.Join(rel, e.Name()), inc, exc)
		if some || err != nil {
			return some, err
		}
	}
	return false, nil
}

// maker makes a directory when it is first needed.
type maker struct {
	c    *copier
	to   *place
	dir  *os.File
	made bool
}

func (m *maker) make() error {
	to := m.to
	err := to.lstat()
	switch {
	case errors.Is(err, unix.ENOENT):
		if err := beneath.WithMode(0o755)(to.dir, to.name, to.path); err != nil {
			return err
		}
		m.made = true
	case err != nil:
		return err
	case !to.isDir():
		if err := m.replace(); err != nil {
			return err
		}
	}
	// A link to a directory at the place that a copy begins with was resolved before.
	m.dir, err = openAt(to, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return err
}

// replace makes the directory in the place of something else.
func (m *maker) replace() error {
	to := m.to
	if !m.c.a.AlwaysReplaceExistingDestPaths {
		return fmt.Errorf("cannot copy to non-directory: %s", to.path)
	}
	if err := unix.Unlinkat(to.fd(), to.name, 0); err != nil {
		return to.err("remove", err)
	}
	m.made = true
	return beneath.WithMode(0o755)(to.dir, to.name, to.path)
}

func (m *maker) close() {
	if m.dir != nil {
		m.dir.Close()
	}
}

// unwrap takes the path of the host out of an error.
func unwrap(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
