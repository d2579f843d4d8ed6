//go:build linux

// Package merge puts the layers of snapshots together in one folder, by hard links.
//
// A Target is a folder that is filled with the changes of layers, one layer after the other, as if
// their archives were unpacked there: what comes later wins, a folder takes the looks that the last
// layer gives it, and what a layer removes is gone. No contents are copied. Committed snapshots are
// never written to again, so one file on disk can be in many; writing to a tree that is built on them
// copies the file first, which is the business of the snapshotters.
//
// The package knows folders only and is used by the snapshotters.
package merge

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// Layer is what a committed snapshot changes in its parent.
type Layer struct {
	// Snapshot is its name.
	Snapshot string
	// Removed are names that the layer removes besides, as Compare has returned them.
	Removed []string
}

// LayerError says which snapshot a merge failed for.
type LayerError struct {
	Snapshot string
	Err      error
}

func (e *LayerError) Error() string {
	return fmt.Sprintf("layer of snapshot %s: %v", e.Snapshot, e.Err)
}

// Unwrap returns the cause.
func (e *LayerError) Unwrap() error { return e.Err }

// Target is a folder that layers are put into. It is a layer.Sink.
type Target struct {
	dir    string
	root   int
	xattrs layer.XattrPrefix
	// below finds what lies under the folder, nil if nothing does.
	below *layer.Finder

	// folder was opened last, as fd; -1 for none. Names of one folder come together.
	folder string
	fd     int
	// from is where the file linked last is, as fromFD; -1 for none.
	from   string
	fromFD int
	// times of the folders made, set at the end: what is put into a folder changes its own.
	times map[string][2]unix.Timespec
	// size of what does not share its bytes with other snapshots.
	size int64
}

var _ layer.Sink = (*Target)(nil)

// Open returns the Target of the empty folder dir. It will lie on the stack below: what is removed
// from that gets a mark of overlayfs. Without one nothing needs any.
func Open(dir string, below layer.Stack) (*Target, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	t := &Target{dir: dir, root: root, xattrs: below.Xattrs, fd: -1, fromFD: -1, times: map[string][2]unix.Timespec{}}
	if len(below.Dirs) > 0 {
		t.below = layer.NewFinder(below)
	}
	return t, nil
}

// Close ends the use without setting times.
func (t *Target) Close() {
	t.forget()
	t.forgetFrom()
	unix.Close(t.root)
}

// SetRoot gives the folder itself the looks of another one; layers say nothing of it.
func (t *Target) SetRoot(dir string) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	t.times["."] = [2]unix.Timespec{st.Atim, st.Mtim}
	return layer.CopyMetadata(t.dir, dir)
}

// Finish sets the times of folders, and returns how many bytes on disk are not shared with other
// snapshots.
func (t *Target) Finish() (int64, error) {
	for name, times := range t.times {
		fd, err := t.open(name)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue // a later layer has removed or replaced it
		}
		if err != nil {
			return 0, nameError(name, err)
		}
		var st unix.Stat_t
		err = unix.Fstatat(fd, ".", &st, 0)
		if err == nil {
			t.size += st.Blocks * blockSize
			err = unix.UtimesNanoAt(fd, ".", times[:], 0)
		}
		unix.Close(fd)
		if err != nil {
			return 0, nameError(name, err)
		}
	}
	return t.size, nil
}

// blockSize is the unit of Stat_t.Blocks.
const blockSize = 512

func nameError(name string, err error) error { return fmt.Errorf("merge %q: %w", name, err) }

// Add puts something into the folder in place of what was there; two folders become one.
func (t *Target) Add(name, file string, st *unix.Stat_t) error {
	folder, base := split(name)
	parent, err := t.parent(folder)
	if err != nil {
		return nameError(name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = t.addFolder(parent, name, base, file, st)
	} else {
		err = t.addFile(parent, base, file)
	}
	if err != nil {
		return nameError(name, err)
	}
	return nil
}

func (t *Target) addFolder(parent int, name, base, file string, st *unix.Stat_t) error {
	var there unix.Stat_t
	err := unix.Fstatat(parent, base, &there, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		err = unix.Mkdirat(parent, base, 0o700)
	case err == nil && there.Mode&unix.S_IFMT != unix.S_IFDIR:
		err = t.replace(parent, name, base)
	}
	if err != nil {
		return err
	}
	t.times[name] = [2]unix.Timespec{st.Atim, st.Mtim}
	return layer.CopyMetadata(procPath(parent, base), file)
}

// replace makes a folder in place of a file or a mark, which hides a folder below still.
func (t *Target) replace(parent int, name, base string) error {
	below, err := t.find(name)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(parent, base, 0); err != nil {
		return err
	}
	if err := unix.Mkdirat(parent, base, 0o700); err != nil {
		return err
	}
	if below != nil && below.IsDir() {
		return t.xattrs.SetOpaque(procPath(parent, base))
	}
	return nil
}

func (t *Target) addFile(parent int, base, file string) error {
	err := t.link(parent, base, file)
	if errors.Is(err, unix.EEXIST) {
		if err := t.clear(parent, base); err != nil {
			return err
		}
		err = t.link(parent, base, file)
	}
	if errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) {
		var n int64
		n, err = copyFile(procPath(parent, base), file)
		t.size += n
	}
	return err
}

// link links a file by way of open folders: to walk down their paths would take longer than that.
func (t *Target) link(parent int, base, file string) error {
	from, name := filepath.Split(file)
	if t.fromFD < 0 || t.from != from {
		fd, err := unix.Open(from, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: from, Err: err}
		}
		t.forgetFrom()
		t.from, t.fromFD = from, fd
	}
	return unix.Linkat(t.fromFD, name, parent, base, 0)
}

func (t *Target) forgetFrom() {
	if t.fromFD >= 0 {
		unix.Close(t.fromFD)
		t.fromFD = -1
	}
}

// Remove removes a name, with all that is in it.
func (t *Target) Remove(name string) error {
	folder, base := split(name)
	below, err := t.find(name)
	if err != nil {
		return nameError(name, err)
	}
	var parent int
	if below != nil {
		parent, err = t.parent(folder)
	} else if parent, err = t.reuse(folder); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // nothing is there
	}
	if err == nil {
		err = t.clear(parent, base)
	}
	if err == nil && below != nil {
		err = unix.Mknodat(parent, base, unix.S_IFCHR, 0)
	}
	if err != nil {
		return nameError(name, err)
	}
	return nil
}

// clear removes what is there.
func (t *Target) clear(parent int, base string) error {
	err := unix.Unlinkat(parent, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return os.RemoveAll(procPath(parent, base))
}

// find returns what lies below the target at a name and is seen through it.
func (t *Target) find(name string) (*layer.File, error) {
	if t.below == nil {
		return nil, nil
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		fd, err := t.open(name[:i])
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		opaque := t.xattrs.IsOpaque(procPath(fd, "."))
		unix.Close(fd)
		if opaque {
			return nil, nil
		}
	}
	return t.below.Find(name)
}

// reuse opens a folder of the target, or returns the one opened last.
func (t *Target) reuse(folder string) (int, error) {
	if t.fd >= 0 && t.folder == folder {
		return t.fd, nil
	}
	fd, err := t.open(folder)
	if err != nil {
		return -1, err
	}
	t.forget()
	t.folder, t.fd = folder, fd
	return fd, nil
}

// parent is reuse that makes what is missing, with the looks of what lies below.
func (t *Target) parent(folder string) (int, error) {
	fd, err := t.reuse(folder)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return -1, err
	}
	at := "."
	for part := range strings.SplitSeq(folder, "/") {
		if err := t.makeFolder(at, part); err != nil {
			return -1, err
		}
		at = path.Join(at, part)
	}
	return t.reuse(folder)
}

func (t *Target) makeFolder(folder, base string) error {
	parent, err := t.reuse(folder)
	if err != nil {
		return err
	}
	name := path.Join(folder, base)
	var st unix.Stat_t
	err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return nil
	}
	if err == nil {
		if err := t.replace(parent, name, base); err != nil {
			return err
		}
		return unix.Fchmodat(parent, base, 0o755, 0)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	below, err := t.find(name)
	if err != nil {
		return err
	}
	if below != nil && below.IsDir() {
		return t.addFolder(parent, name, base, below.Path, below.Stat)
	}
	if err := unix.Mkdirat(parent, base, 0o755); err != nil {
		return err
	}
	return unix.Fchmodat(parent, base, 0o755, 0)
}

// open opens a folder of the target that is reached without symbolic links. The caller closes it.
func (t *Target) open(name string) (int, error) {
	return unix.Openat2(t.root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

func (t *Target) forget() {
	if t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
	}
}

func split(name string) (folder, base string) {
	folder, base = path.Split(name)
	return path.Clean(folder), base
}

// procPath names something in an open folder for the calls that take paths only.
func procPath(dir int, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + base
}

// Link gives src, which is no folder, the name dst too. If it has as many names as it can, or must not
// be linked, it is copied; the size on disk of a copy is returned.
func Link(dst, src string) (copied int64, err error) {
	err = unix.Link(src, dst)
	if errors.Is(err, unix.EMLINK) || errors.Is(err, unix.EPERM) {
		return copyFile(dst, src)
	}
	if err != nil {
		return 0, &os.LinkError{Op: "link", Old: src, New: dst, Err: err}
	}
	return 0, nil
}

func copyFile(dst, src string) (size int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return 0, &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = fs.CopyFile(dst, src)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	default:
		if err = unix.Mknod(dst, st.Mode, int(st.Rdev)); err != nil {
			err = &os.PathError{Op: "mknod", Path: dst, Err: err}
		}
	}
	if err == nil {
		err = layer.CopyMetadata(dst, src)
	}
	if err == nil {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return st.Blocks * blockSize, err
}

// Additions is a Target that notes what is removed instead of removing it: nothing is there to begin
// with.
type Additions struct {
	*Target
	Removed []string
}

// Remove notes a name.
func (a *Additions) Remove(name string) error {
	a.Removed = append(a.Removed, name)
	return nil
}
