package filesync

import (
	"io/fs"
	"strconv"
	"strings"

	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

func mknodAt(dirfd int, name string, mode uint32, dev int) error {
	return unix.Mknodat(dirfd, name, mode, dev)
}

// setXattrsAt sets the attributes of an entry that can't be opened.
func setXattrsAt(dirfd int, name string, st *types.Stat) error {
	for key, value := range st.Xattrs {
		p := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + name
		if err := unix.Lsetxattr(p, key, value, 0); !ignorable(err) {
			return &fs.PathError{Op: "setxattr " + key, Path: st.Path, Err: err}
		}
	}
	return nil
}

// dropXattrs removes the attributes of a directory that st does not have, but for those that the
// system makes by itself.
func dropXattrs(fd int, st *types.Stat) error {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n == 0 {
		return nil
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if _, ok := st.Xattrs[name]; ok || !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "trusted.") {
			continue
		}
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if err := unix.Fremovexattr(fd, name); !ignorable(err) {
			return &fs.PathError{Op: "removexattr " + name, Path: st.Path, Err: err}
		}
	}
	return nil
}
