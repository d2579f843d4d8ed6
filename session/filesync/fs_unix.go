//go:build !windows

package filesync

import (
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// openDirAt opens a directory in parent, given its full path; a symbolic link is not followed.
func openDirAt(parent *os.File, full string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		fd, err := unix.Openat(int(parent.Fd()), filepath.Base(full), flags, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), full), nil
		}
		if err != unix.EINTR {
			return nil, &fs.PathError{Op: "open", Path: full, Err: err}
		}
	}
}

// describe returns the description of the entry at rel, which is in parent.
func (w *walker) describe(parent *os.File, rel string) (d described) {
	var sys unix.Stat_t
	full := w.base + "/" + rel
	if err := unix.Fstatat(int(parent.Fd()), filepath.Base(rel), &sys, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return described{err: &fs.PathError{Op: "lstat", Path: full, Err: err}}
	}
	mode := fileMode(uint32(sys.Mode))
	st := &types.Stat{
		Path: rel, Mode: uint32(mode), Uid: sys.Uid, Gid: sys.Gid,
		ModTime: unix.TimespecToNsec(sys.Mtim),
	}
	d.st = st
	if !mode.IsDir() {
		st.Size = sys.Size
	}
	if mode&fs.ModeDevice != 0 {
		st.Devmajor = int64(unix.Major(uint64(sys.Rdev)))
		st.Devminor = int64(unix.Minor(uint64(sys.Rdev)))
	}
	if mode&fs.ModeSymlink != 0 {
		if st.Linkname, d.err = os.Readlink(full); d.err != nil {
			return d
		}
	} else if !mode.IsDir() && sys.Nlink > 1 {
		d.id = inode{uint64(sys.Dev), uint64(sys.Ino)}
	}
	if mode.IsRegular() {
		setToken(st, changeToken(&sys, w.start))
	}
	d.err = readXattrs(full, st)
	return d
}

// fileMode returns the mode of a file as Go has it.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// changeToken returns the token of a file: its change time in ns and its inode number. A file that
// changed at start or later has an empty one, which equals none.
func changeToken(sys *unix.Stat_t, start int64) []byte {
	changed := unix.TimespecToNsec(sys.Ctim)
	if changed >= start {
		return []byte{}
	}
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, uint64(changed))
	binary.LittleEndian.PutUint64(b[8:], uint64(sys.Ino))
	return b
}

// readXattrs adds the extended attributes that can be read.
func readXattrs(full string, st *types.Stat) error {
	var small [512]byte
	names := small[:]
	n, err := unix.Llistxattr(full, names)
	if err == unix.ERANGE {
		names = make([]byte, 64<<10)
		n, err = unix.Llistxattr(full, names)
	}
	if err == unix.ENOTSUP || err == unix.EPERM || err == unix.EACCES || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: full, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "com.apple.") {
			continue
		}
		size, err := unix.Lgetxattr(full, name, nil)
		if err != nil {
			continue // not readable by us
		}
		value := make([]byte, size)
		n, err := unix.Lgetxattr(full, name, value)
		if err != nil {
			continue
		}
		if st.Xattrs == nil {
			st.Xattrs = map[string][]byte{}
		}
		st.Xattrs[name] = value[:n]
	}
	return nil
}
