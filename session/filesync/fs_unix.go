//go:build !windows

package filesync

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

const openNonblock = syscall.O_NONBLOCK

// describeSystem adds what only the system knows: owner, device numbers, hard links, extended
// attributes and the change token.
func describeSystem(w *walker, full string, info fs.FileInfo, st *types.Stat) error {
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.ErrUnsupported
	}
	st.Uid, st.Gid = sys.Uid, sys.Gid
	if info.Mode()&fs.ModeDevice != 0 {
		st.Devmajor = int64(unix.Major(uint64(sys.Rdev)))
		st.Devminor = int64(unix.Minor(uint64(sys.Rdev)))
	}
	if !info.IsDir() && sys.Nlink > 1 {
		first := w.firstPath(inode{uint64(sys.Dev), uint64(sys.Ino)}, st.Path)
		if info.Mode()&fs.ModeSymlink == 0 {
			st.Linkname = first
		}
	}
	if info.Mode().IsRegular() {
		setToken(st, changeToken(sys, w.racy))
	}
	return readXattrs(full, st)
}

// changeToken returns the token of a file: its change time in ns and its inode number.
func changeToken(sys *syscall.Stat_t, racy int64) []byte {
	changed := changeTime(sys)
	if changed >= racy {
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
