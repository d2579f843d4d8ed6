//go:build linux

package layer

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// XattrPrefix is where overlayfs keeps its marks in a layer: it depends on whether the stack is
// mounted with the option userxattr.
type XattrPrefix string

// The two prefixes that overlayfs knows.
const (
	TrustedXattrs XattrPrefix = "trusted.overlay."
	UserXattrs    XattrPrefix = "user.overlay."
)

// IsOpaque reports whether the folder hides what layers below have in its place.
func (p XattrPrefix) IsOpaque(dir string) bool {
	v, err := sysx.LGetxattr(dir, string(p)+"opaque")
	return err == nil && len(v) == 1 && v[0] == 'y'
}

// SetOpaque marks the folder.
func (p XattrPrefix) SetOpaque(dir string) error {
	if err := sysx.LSetxattr(dir, string(p)+"opaque", []byte("y"), 0); err != nil {
		return &os.PathError{Op: "setxattr", Path: dir, Err: err}
	}
	return nil
}

// IsWhiteout reports whether st is overlayfs's mark for a name that has been removed.
func IsWhiteout(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Mode&unix.S_IFMT == unix.S_IFCHR && sys.Rdev == 0
}

// keepsXattr reports whether an extended attribute belongs to a file, in contrast to those that
// the file system or the machine put there.
func keepsXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, string(TrustedXattrs)), strings.HasPrefix(name, string(UserXattrs)):
		return false
	case name == "security.capability", strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."),
		name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	default:
		return false
	}
}

// xattrs returns the extended attributes of a file that belong to it, nil if there are none.
func xattrs(path string) (map[string]string, error) {
	names, err := sysx.LListxattr(path)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var all map[string]string
	for _, name := range names {
		if !keepsXattr(name) {
			continue
		}
		v, err := sysx.LGetxattr(path, name)
		if err != nil {
			if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
				continue
			}
			return nil, &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		if all == nil {
			all = map[string]string{}
		}
		all[name] = string(v)
	}
	return all, nil
}

// CopyMetadata gives dst the owner, the mode and the extended attributes of src, and no other ones.
// Neither is followed if it is a symbolic link.
func CopyMetadata(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	attrs, err := xattrs(src)
	if err != nil {
		return err
	}
	had, err := xattrs(dst)
	if err != nil {
		return err
	}
	for name := range had {
		if _, ok := attrs[name]; ok {
			continue
		}
		if err := sysx.LRemovexattr(dst, name); err != nil {
			return &os.PathError{Op: "removexattr " + name, Path: dst, Err: err}
		}
	}
	for name, v := range attrs {
		if err := sysx.LSetxattr(dst, name, []byte(v), 0); err != nil {
			return &os.PathError{Op: "setxattr " + name, Path: dst, Err: err}
		}
	}
	return nil
}
