//go:build !windows

package filesync

import (
	"errors"
	"io/fs"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// freshFile is what a file is like that was made in a directory with some permissions and had
// nothing else done to it: who makes it, the directory and its attributes have a say.
type freshFile struct {
	asked, mode uint32
	uid, gid    uint32
}

// freshFile returns what f is like, which was made in d with some permissions.
func (d *dirHandle) freshFile(f *handle, asked uint32) (*freshFile, error) {
	if is := d.fresh.Load(); is != nil && is.asked == asked {
		return is, nil
	}
	var sys unix.Stat_t
	if err := unix.Fstat(f.fd, &sys); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.path, Err: err}
	}
	is := &freshFile{asked: asked, mode: uint32(sys.Mode) & 0o7777, uid: sys.Uid, gid: sys.Gid}
	d.fresh.Store(is)
	return is, nil
}

// applyFile sets the owner, mode, attributes and time of a file that is open as f, was just made
// with the permissions of st and lies in d under name.
func applyFile(d *dirHandle, name string, f *handle, st *types.Stat) error {
	is, err := d.freshFile(f, uint32(modeOf(st).Perm()))
	if err != nil {
		return err
	}
	mode := systemMode(modeOf(st))
	owned := is.uid == st.Uid && is.gid == st.Gid
	if !owned {
		if err := unix.Fchown(f.fd, int(st.Uid), int(st.Gid)); err != nil {
			return &fs.PathError{Op: "chown", Path: st.Path, Err: err}
		}
	}
	if !owned || is.mode != mode {
		if err := retry(func() error { return unix.Fchmod(f.fd, mode) }); err != nil {
			return &fs.PathError{Op: "chmod", Path: st.Path, Err: err}
		}
	}
	if err := setXattrs(f.fd, st); err != nil {
		return err
	}
	return applyTime(d, name, st)
}

// systemMode returns the permissions and the bits beside them as the system has them.
func systemMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&fs.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&fs.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

// applyOther sets the owner, mode, attributes and time of what is neither file nor directory.
func applyOther(d *dirHandle, name string, st *types.Stat) error {
	fd := d.fd
	if err := unix.Fchownat(fd, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: st.Path, Err: err}
	}
	if modeOf(st)&fs.ModeSymlink == 0 {
		if err := d.root.Chmod(name, modeOf(st)); err != nil {
			return err
		}
	}
	if err := setXattrsAt(fd, name, st); err != nil {
		return err
	}
	return applyTime(d, name, st)
}

// applyDir sets the owner, mode and attributes of a directory. Its time is set at the end.
func applyDir(d *dirHandle, st *types.Stat) error {
	fd := d.fd
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: st.Path, Err: err}
	}
	if err := d.self.Chmod(modeOf(st)); err != nil {
		return err
	}
	if err := dropXattrs(fd, st); err != nil {
		return err
	}
	return setXattrs(fd, st)
}

// applyTime sets access and modification time.
func applyTime(d *dirHandle, name string, st *types.Stat) error {
	ts := unix.NsecToTimespec(st.ModTime)
	err := unix.UtimesNanoAt(d.fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return &fs.PathError{Op: "utimes", Path: st.Path, Err: err}
	}
	return nil
}

// makeSpecial makes a device or a named pipe. It reports false if this process may not.
func makeSpecial(d *dirHandle, name string, st *types.Stat) (bool, error) {
	mode := uint32(modeOf(st).Perm())
	dev := 0
	switch m := modeOf(st); {
	case m&fs.ModeNamedPipe != 0:
		mode |= unix.S_IFIFO
	case m&fs.ModeCharDevice != 0:
		mode |= unix.S_IFCHR
		dev = int(unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor)))
	case m&fs.ModeDevice != 0:
		mode |= unix.S_IFBLK
		dev = int(unix.Mkdev(uint32(st.Devmajor), uint32(st.Devminor)))
	default:
		return false, nil
	}
	err := d.make(name, func() error { return mknodAt(d.fd, name, mode, dev) }, keepNothing)
	if errors.Is(err, unix.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// ignorable reports whether an attribute that can't be set may be left out: the file system has
// no such attributes, or the process may not set those of the kind.
func ignorable(err error) bool {
	return err == nil || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

func setXattrs(fd int, st *types.Stat) error {
	for name, value := range st.Xattrs {
		if err := unix.Fsetxattr(fd, name, value, 0); !ignorable(err) {
			return &fs.PathError{Op: "setxattr " + name, Path: st.Path, Err: err}
		}
	}
	return nil
}
