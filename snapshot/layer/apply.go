//go:build linux

package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// EntryError is an error that one entry of an archive has caused.
type EntryError struct {
	// Name is the entry's name as the archive has it.
	Name string
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("layer entry %q: %v", e.Name, e.Err) }

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

// Applied tells of an archive that was unpacked.
type Applied struct {
	// Size is the sum of the sizes of the files written.
	Size int64
	// Removed are the names that the archive removes, folders that it empties among them, whether
	// there was anything or not. It is nil if there are more than maxRemoved.
	Removed []string
}

// maxRemoved bounds what is remembered of an archive.
const maxRemoved = 1 << 16

// Apply unpacks the uncompressed archive r onto the tree at root, a folder that nobody else writes
// to meanwhile. It reads r up to the end of the archive, not further.
//
// Removals (whiteouts) remove from the tree as it is seen; root has to be the mounted tree, not an
// upper folder. An entry that cannot be made is an *EntryError. What has been unpacked until then
// stays.
func Apply(ctx context.Context, root string, r io.Reader) (Applied, error) {
	return apply(ctx, root, r, &applier{})
}

// Unpack is Apply for an archive that is no layer: names that stand for removals there are names
// like others, and the root keeps its owner, mode and time. change, if not nil, may change what an
// entry says of itself before it is made. It returns the sum of the sizes of the files written.
func Unpack(ctx context.Context, root string, r io.Reader, change func(*tar.Header)) (int64, error) {
	applied, err := apply(ctx, root, r, &applier{ordinary: true, change: change})
	return applied.Size, err
}

// apply unpacks with an applier that knows what is different from Apply.
func apply(ctx context.Context, root string, r io.Reader, a *applier) (Applied, error) {
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Applied{}, &os.PathError{Op: "open", Path: root, Err: err}
	}
	a.ctx = ctx
	a.tree = tree{root: rootFD, dir: -1}
	a.copyBuf = make([]byte, 128<<10)
	a.seed = maphash.MakeSeed()
	a.written = map[uint64]struct{}{}
	a.removed = map[string]struct{}{}
	if detached := a.alone; detached != nil {
		a.plain = true
		a.made = func(dir string) { detached.implied[dir] = false }
	}
	defer a.close()
	tr := tar.NewReader(bufio.NewReaderSize(r, 128<<10))
	for {
		if ctx.Err() != nil {
			return a.applied(), context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a.applied(), a.setDirTimes()
		}
		if err != nil {
			return a.applied(), fmt.Errorf("read layer archive: %w", err)
		}
		if a.change != nil {
			a.change(hdr)
		}
		if err := a.entry(hdr, tr); err != nil {
			return a.applied(), &EntryError{hdr.Name, err}
		}
		if len(a.dirTimes) >= maxDirTimes {
			if err := a.setDirTimes(); err != nil {
				return a.applied(), err
			}
			a.dirTimes = nil
		}
	}
}

// maxDirTimes is how many times of folders are remembered. With more, those of the first ones are set
// before the end, so that what is made in them later changes them.
const maxDirTimes = 1 << 20

type applier struct {
	tree
	ctx     context.Context //nolint:containedctx // of the one archive
	copyBuf []byte
	size    int64
	// ordinary tells that the archive is no layer; change changes headers.
	ordinary bool
	change   func(*tar.Header)
	// dirTimes are set at the end: files made in a folder change its time.
	dirTimes []dirTime
	// written has the hash of every path of this layer, for opaque folders.
	seed    maphash.Seed
	written map[uint64]struct{}
	// removed has the names that were removed, at most one more than are remembered.
	removed map[string]struct{}
	// alone is set if the tree below is not here.
	alone *detachedUpper
}

func (a *applier) applied() Applied {
	done := Applied{Size: a.size}
	if len(a.removed) > 0 && len(a.removed) <= maxRemoved {
		done.Removed = slices.Sorted(maps.Keys(a.removed))
	}
	return done
}

func (a *applier) noteRemoved(name string) {
	if len(a.removed) <= maxRemoved {
		a.removed[name] = struct{}{}
	}
}

type dirTime struct {
	name string
	time time.Time
}

func (a *applier) hash(name string) uint64 { return maphash.String(a.seed, name) }

func (a *applier) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := clean(hdr.Name)
	dir, base := path.Split(name)
	switch {
	case a.ordinary:
		return a.ordinaryEntry(hdr, content, name)
	case strings.HasPrefix(base, whiteoutPrefix):
		return a.whiteout(clean(dir), base)
	}
	for p := name; p != "."; p = path.Dir(p) {
		h := a.hash(p)
		if _, ok := a.written[h]; ok {
			break
		}
		a.written[h] = struct{}{}
	}
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return errors.New("the root of a tree can be a folder only")
		}
		return a.rootMetadata(hdr)
	}
	parent, err := a.parent(clean(dir))
	if a.alone != nil {
		err = a.alone.need(clean(dir), err)
	}
	if err != nil {
		return err
	}
	if err := a.make(parent, name, base, hdr, content); err != nil {
		return err
	}
	return nil
}

// ordinaryEntry makes an entry of an archive that is no layer.
func (a *applier) ordinaryEntry(hdr *tar.Header, content io.Reader, name string) error {
	if name == "." {
		return nil
	}
	dir, base := path.Split(name)
	parent, err := a.parent(clean(dir))
	if err != nil {
		return err
	}
	return a.make(parent, name, base, hdr, content)
}

// clean returns the name as a relative path within the root, "." for the root itself.
func clean(name string) string {
	name = path.Clean("/" + name)[1:]
	if name == "" {
		return "."
	}
	return name
}

func (a *applier) rootMetadata(hdr *tar.Header) error {
	f, err := a.openDir(".")
	if err != nil {
		return err
	}
	defer unix.Close(f)
	if a.alone != nil {
		a.alone.hasRoot = true
	}
	a.dirTimes = append(a.dirTimes, dirTime{".", hdr.ModTime})
	return metadata(f, ".", hdr)
}

// make makes the entry in the folder parent.
func (a *applier) make(parent int, name, base string, hdr *tar.Header, content io.Reader) error {
	// What hides a file below has to hide it still when it becomes a folder.
	hides := a.alone != nil && hdr.Typeflag == tar.TypeDir && isWhiteoutAt(parent, base)
	if err := a.clear(parent, base, hdr.Typeflag); err != nil {
		return err
	}
	mode := uint32(hdr.Mode & 0o7777)
	switch hdr.Typeflag {
	case tar.TypeDir:
		err := unix.Mkdirat(parent, base, 0o700)
		if errors.Is(err, unix.EEXIST) {
			err = nil
			if !a.ordinary {
				// The entry says all that the folder is.
				err = dropXattrs(procPath(parent, base), hdr)
			}
		}
		if err != nil {
			return err
		}
		a.dirTimes = append(a.dirTimes, dirTime{name, hdr.ModTime})
		if a.alone != nil {
			delete(a.alone.implied, name)
		}
		if hides {
			if err := a.alone.xattrs.SetOpaque(procPath(parent, base)); err != nil {
				return err
			}
		}
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse: //nolint:staticcheck // archives with TypeRegA exist
		return a.file(parent, base, hdr, content)
	case tar.TypeLink:
		return a.link(parent, base, hdr.Linkname)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(hdr.Linkname, parent, base); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if err := mknod(parent, base, mode, hdr); err != nil {
			return err
		}
	default:
		return fmt.Errorf("type %q is not supported", hdr.Typeflag)
	}
	if err := metadata(parent, base, hdr); err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeDir {
		return nil
	}
	return setTime(parent, base, hdr.ModTime)
}

// clear removes what is in the way of an entry: anything, unless both are folders.
func (a *applier) clear(parent int, base string, typeflag byte) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if typeflag == tar.TypeDir && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	return removeAll(parent, base)
}

func removeAll(parent int, base string) error {
	return os.RemoveAll(procPath(parent, base))
}

func (a *applier) file(parent int, base string, hdr *tar.Header, content io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	holes := sparse(hdr)
	if holes {
		if err := requireRoom(fd, hdr.Size); err != nil {
			return err
		}
	}
	n, err := a.fill(f, content, holes)
	a.size += n
	if err != nil {
		return err
	}
	if err := metadata(parent, base, hdr); err != nil {
		return err
	}
	return setTime(parent, base, hdr.ModTime)
}

// requireRoom fails at once for a sparse file that is larger than what is free: holes take no room,
// but they are read as zeros, of which a header of a few bytes can ask for more than anybody waits
// for.
func requireRoom(fd int, size int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	if uint64(size)/uint64(st.Bsize) >= st.Bavail {
		return fmt.Errorf("a sparse file of %d bytes: %w", size, unix.ENOSPC)
	}
	return nil
}

// fill writes the contents of a file, and leaves the holes of one that is sparse.
func (a *applier) fill(f *os.File, content io.Reader, holes bool) (size int64, err error) {
	for err == nil {
		if a.ctx.Err() != nil {
			return size, context.Cause(a.ctx)
		}
		n := 0
		for n < len(a.copyBuf) && err == nil {
			var m int
			m, err = content.Read(a.copyBuf[n:])
			n += m
		}
		part := a.copyBuf[:n]
		if holes && isZero(part) {
			size += int64(n)
			continue
		}
		w, werr := f.WriteAt(part, size)
		if size += int64(w); werr != nil {
			return size, werr
		}
	}
	switch {
	case !errors.Is(err, io.EOF):
		return size, err
	case holes:
		return size, f.Truncate(size)
	}
	return size, nil
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

func (a *applier) link(parent int, base, target string) error {
	dir, name := path.Split(clean(target))
	if name == "." || name == "" {
		return fmt.Errorf("hard link to %q: not a file", target)
	}
	d, err := a.openDir(clean(dir))
	if err != nil {
		if a.alone != nil {
			err = a.alone.explain(err)
		}
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	defer unix.Close(d)
	if a.alone != nil && (isWhiteoutAt(d, name) || unix.Faccessat(d, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) != nil) {
		return fmt.Errorf("hard link to %q: %w", target, ErrNeedsParent)
	}
	if err := unix.Linkat(d, name, parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", target, err)
	}
	return nil
}

func mknod(parent int, base string, mode uint32, hdr *tar.Header) error {
	var dev uint64
	switch hdr.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	if hdr.Typeflag != tar.TypeFifo {
		const limit = 1 << 31
		if hdr.Devmajor < 0 || hdr.Devmajor >= limit || hdr.Devminor < 0 || hdr.Devminor >= limit {
			return fmt.Errorf("device number %d:%d is out of range", hdr.Devmajor, hdr.Devminor)
		}
		if hdr.Typeflag == tar.TypeChar && hdr.Devmajor == 0 && hdr.Devminor == 0 {
			return errors.New("device number 0:0 is reserved for removals")
		}
		dev = unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
	}
	return unix.Mknodat(parent, base, mode, int(dev))
}

// metadata sets the owner, the mode and the extended attributes of a new entry, in the order in
// which one does not undo the other.
func metadata(parent int, base string, hdr *tar.Header) error {
	if err := unix.Fchownat(parent, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", hdr.Uid, hdr.Gid, err)
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(hdr.Mode&0o7777), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	for k, v := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(k, xattrRecord)
		if !ok || !keepsXattr(attr) {
			continue
		}
		err := unix.Lsetxattr(procPath(parent, base), attr, []byte(v), 0)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && strings.HasPrefix(attr, "trusted.") {
			continue // the file system or the user namespace has no such thing
		}
		if err != nil {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	return nil
}

// dropXattrs removes the extended attributes of a folder that an entry does not have.
func dropXattrs(dir string, hdr *tar.Header) error {
	attrs, err := xattrs(dir)
	if err != nil {
		return err
	}
	for name := range attrs {
		if _, ok := hdr.PAXRecords[xattrRecord+name]; ok {
			continue
		}
		if err := sysx.LRemovexattr(dir, name); err != nil {
			return fmt.Errorf("remove attribute %s: %w", name, err)
		}
	}
	return nil
}

func setTime(parent int, base string, t time.Time) error {
	ts := timespec(t)
	if err := unix.UtimesNanoAt(parent, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// timespec cuts times that file systems cannot hold.
func timespec(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.Unix() > 1<<40 {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

func (a *applier) setDirTimes() error {
	for _, d := range slices.Backward(a.dirTimes) {
		fd, err := a.openNoFollow(d.name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later entry has removed or replaced it
		}
		if err != nil {
			return &EntryError{d.name, err}
		}
		err = setTime(fd, ".", d.time)
		unix.Close(fd)
		if err != nil {
			return &EntryError{d.name, err}
		}
	}
	return nil
}

// whiteout removes what the entry base in the folder dir stands for.
func (a *applier) whiteout(dir, base string) error {
	a.forget()
	if base == opaqueName {
		if dir != "." {
			a.noteRemoved(dir)
		}
		if a.alone != nil {
			return a.alone.opaque(a, dir)
		}
		return a.opaque(dir)
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if strings.HasPrefix(name, whiteoutPrefix) {
		return nil // bookkeeping of AUFS
	}
	if name == "" || name == "." || name == ".." {
		return errors.New("invalid name of a removed file")
	}
	a.noteRemoved(path.Join(dir, name))
	if a.alone != nil {
		return a.alone.remove(a, dir, name)
	}
	fd, err := a.openDir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return removeAll(fd, name)
}

// opaque removes everything from the folder that did not come with this layer.
func (a *applier) opaque(dir string) error {
	fd, err := a.openDir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f, err := os.Open(procPath(fd, "."))
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(dir, e.Name())
		if _, ok := a.written[a.hash(child)]; !ok {
			if err := removeAll(fd, e.Name()); err != nil {
				return err
			}
			continue
		}
		if e.IsDir() {
			if err := a.opaque(child); err != nil {
				return err
			}
		}
	}
	return nil
}
