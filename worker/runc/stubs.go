package runc

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// stubs are the empty files and folders that were made in a tree for mounts to stand on. The times
// of the folders they are in are kept as if they had never been there.
type stubs struct {
	root *beneath.Root
	// recursive: the folders that were made on the way to a mount point are stubs as well.
	recursive bool
	made      []stub
}

type stub struct {
	path string // in the tree, without links
	dir  bool
	ino  uint64
}

// make makes the mount point of m if it is not there. In a tree that cannot be written to it does
// nothing: there the runtime fails if it has to.
func (s *stubs) make(m specs.Mount) error {
	var err error
	switch {
	case m.Type == "tmpfs":
		// The runtime gives the mode of the folder to what it mounts on it.
		err = s.makeDir(m.Destination, 0o777|unix.S_ISVTX)
	case isDir(m):
		err = s.makeDir(m.Destination, 0o755)
	default:
		err = s.makeFile(m.Destination)
	}
	if errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

func isDir(m specs.Mount) bool {
	if m.Type != "bind" {
		return true
	}
	st, err := os.Stat(m.Source)
	return err != nil || st.IsDir()
}

func (s *stubs) makeDir(dest string, perm uint32) error {
	first := len(s.made)
	d, p, err := s.root.MkdirAll(dest, s.mkdir)
	if err != nil {
		return err
	}
	defer d.Close()
	n := len(s.made)
	if n == first || s.made[n-1].path != p {
		return nil
	}
	if !s.recursive {
		s.made = append(s.made[:first], s.made[n-1])
	}
	if perm == 0o755 {
		return nil
	}
	return unix.Fchmodat(int(d.Fd()), ".", perm, 0)
}

// makeFile follows a link in the place of the file as the runtime does, which would make its target.
func (s *stubs) makeFile(dest string) error {
	for range 40 {
		next, err := s.tryFile(dest)
		if err != nil || next == "" {
			return err
		}
		dest = next
	}
	return &fs.PathError{Op: "open", Path: dest, Err: unix.ELOOP}
}

func (s *stubs) tryFile(dest string) (next string, err error) {
	first := len(s.made)
	i := strings.LastIndexByte(dest, '/')
	parent, name := dest[:i+1], dest[i+1:]
	if name == "" || name == "." || name == ".." {
		return "", &fs.PathError{Op: "open", Path: dest, Err: unix.EISDIR}
	}
	d, dir, err := s.root.MkdirAll(parent, s.mkdir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	if !s.recursive {
		s.made = s.made[:first]
	}
	buf := make([]byte, unix.PathMax)
	if n, err := unix.Readlinkat(int(d.Fd()), name, buf); err == nil {
		target := string(buf[:n])
		if !path.IsAbs(target) {
			// Not cleaned: ".." is resolved behind the links in front of it.
			target = dir + "/" + target
		}
		return target, nil
	}
	err = s.keepTimes(d, func() error {
		fd, err := unix.Openat(int(d.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	if errors.Is(err, unix.EEXIST) {
		return "", nil
	}
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path.Join(dir, name), Err: err}
	}
	return "", s.add(d, name, path.Join(dir, name), false)
}

func (s *stubs) mkdir(parent *os.File, name, p string) error {
	err := s.keepTimes(parent, func() error { return beneath.WithMode(0o755)(parent, name, p) })
	if err != nil {
		return err
	}
	return s.add(parent, name, p, true)
}

func (s *stubs) add(parent *os.File, name, p string, dir bool) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	s.made = append(s.made, stub{path: p, dir: dir, ino: st.Ino})
	return nil
}

// keepTimes does what changes the times of the folder d, and puts them back. So a process that
// changes the folder later shows.
func (s *stubs) keepTimes(d *os.File, change func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	return setTimes(d, st.Atim, st.Mtim)
}

func setTimes(d *os.File, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(int(d.Fd()), ".", []unix.Timespec{atime, mtime}, 0)
}

// remove removes the stubs that are still what they were, last made first. What the process put in
// their place, or into them, stays.
func (s *stubs) remove() error {
	var errs []error
	for i := len(s.made) - 1; i >= 0; i-- {
		errs = append(errs, s.removeOne(s.made[i]))
	}
	s.made = nil
	return errors.Join(errs...)
}

func (s *stubs) removeOne(st stub) error {
	d, name, err := s.root.Parent(st.path)
	if err != nil {
		return nil // the process has moved or removed the folder
	}
	defer d.Close()
	var now unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &now, unix.AT_SYMLINK_NOFOLLOW); err != nil || now.Ino != st.ino {
		return nil
	}
	flags := 0
	switch now.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR
	case unix.S_IFREG:
		if now.Size > 0 {
			return nil
		}
	default:
		return nil
	}
	err = s.keepTimes(d, func() error { return unix.Unlinkat(int(d.Fd()), name, flags) })
	if err == nil || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return &fs.PathError{Op: "remove mount point", Path: st.path, Err: err}
}

// below tells whether dest lies below one of the mounts: then it is not in the root's tree.
func below(dest string, mounts []specs.Mount) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool {
		return strings.HasPrefix(dest, strings.TrimSuffix(m.Destination, "/")+"/") && dest != m.Destination
	})
}
