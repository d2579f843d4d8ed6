//go:build !windows

package filesync

import (
	"errors"
	"io/fs"
	"os"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// applyFile sets the owner, mode, attributes and time of a file that is open as f and lies in d
// under name.
func applyFile(d *dirHandle, name string, f *os.File, st *types.Stat) error {
	fd := int(f.Fd())
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return &fs.PathError{Op: "chown", Path: st.Path, Err: err}
	}
	if err := f.Chmod(modeOf(st)); err != nil {
		return err
	}
	if err := setXattrs(fd, st); err != nil {
		return err
	}
	return applyTime(d, name, st)
}

// applyOther sets the owner, mode, attributes and time of what is neither file nor directory.
func applyOther(d *dirHandle, name string, st *types.Stat) error {
	fd := int(d.self.Fd())
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
	fd := int(d.self.Fd())
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
	err := unix.UtimesNanoAt(int(d.self.Fd()), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
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
	err := d.make(name, func() error { return mknodAt(int(d.self.Fd()), name, mode, dev) }, keepNothing)
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
