package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// Trees are the trees of one action, mounted on folders of the host.
type Trees struct {
	// Dest is changed.
	Dest string
	// Source is copied from; empty is the empty tree.
	Source string
	// Named is where names of owners are looked up; nil if the action names none.
	Named TreeOf
}

// Apply does one action.
func Apply(ctx context.Context, a *pb.FileAction, trees Trees) error {
	root, err := beneath.Open(trees.Dest)
	if err != nil {
		return err
	}
	defer root.Close()
	switch a := a.Action.(type) {
	case *pb.FileAction_Copy:
		owner, err := LookupOwner(a.Copy.Owner, trees.Named)
		if err != nil {
			return err
		}
		return copyAction(ctx, a.Copy, root, trees, owner)
	case *pb.FileAction_Mkdir:
		owner, err := LookupOwner(a.Mkdir.Owner, trees.Named)
		if err != nil {
			return err
		}
		return mkdir(a.Mkdir, root, owner)
	case *pb.FileAction_Mkfile:
		owner, err := LookupOwner(a.Mkfile.Owner, trees.Named)
		if err != nil {
			return err
		}
		return mkfile(a.Mkfile, root, owner)
	case *pb.FileAction_Symlink:
		owner, err := LookupOwner(a.Symlink.Owner, trees.Named)
		if err != nil {
			return err
		}
		return symlink(a.Symlink, root, owner)
	case *pb.FileAction_Rm:
		return rm(a.Rm, root)
	default:
		return fmt.Errorf("unknown file action %T", a)
	}
}

// stamp sets owner and time of an entry, where they are given; a negative time keeps what it is.
func stamp(dir *os.File, name string, owner *Owner, timestamp int64) error {
	if owner != nil {
		if err := unix.Fchownat(int(dir.Fd()), name, int(owner.UID), int(owner.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "chown", Path: name, Err: err}
		}
	}
	return setTime(dir, name, timestamp)
}

func setTime(dir *os.File, name string, timestamp int64) error {
	if timestamp < 0 {
		return nil
	}
	ts := unix.NsecToTimespec(timestamp)
	if err := unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chtimes", Path: name, Err: err}
	}
	return nil
}

// stamped returns a Mkdir that makes directories of a mode with owner and time.
func stamped(perm uint32, owner *Owner, timestamp int64) beneath.Mkdir {
	mk := beneath.WithMode(perm)
	return func(parent *os.File, name, p string) error {
		if err := mk(parent, name, p); err != nil {
			return err
		}
		return stamp(parent, name, owner, timestamp)
	}
}

// made are paths of directories that an action has made, parents first.
type made []string

// with returns a Mkdir that makes a directory with mk and takes note of it.
func (m *made) with(mk beneath.Mkdir) beneath.Mkdir {
	return func(parent *os.File, name, p string) error {
		err := mk(parent, name, p)
		if err == nil {
			*m = append(*m, p)
		}
		return err
	}
}

// restamp sets the time of the directories once more, where one is given: what was put into them
// has changed it.
func (m made) restamp(root *beneath.Root, timestamp int64) error {
	if timestamp < 0 {
		return nil
	}
	for _, p := range slices.Backward(m) {
		dir, name, err := root.Parent(p)
		if err != nil {
			return err
		}
		err = setTime(dir, name, timestamp)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func mkdir(a *pb.FileActionMkDir, root *beneath.Root, owner *Owner) error {
	perm := uint32(a.Mode) & 0o7777
	if a.MakeParents {
		var m made
		dir, _, err := root.MkdirAll(a.Path, m.with(stamped(perm, owner, a.Timestamp)))
		if err != nil {
			return err
		}
		dir.Close()
		return m.restamp(root, a.Timestamp)
	}
	p, err := root.Resolve(a.Path)
	if err != nil {
		return err
	}
	dir, name, err := root.Parent(p)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = stamped(perm, owner, a.Timestamp)(dir, name, beneath.Clean(a.Path))
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if serr := unix.Fstatat(int(dir.Fd()), name, &st, 0); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
	}
	return err
}

func mkfile(a *pb.FileActionMkFile, root *beneath.Root, owner *Owner) error {
	perm := uint32(a.Mode) & 0o777
	f, err := root.OpenFile(a.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(a.Data); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(perm)); err != nil {
		return err
	}
	if owner != nil {
		if err := f.Chown(int(owner.UID), int(owner.GID)); err != nil {
			return err
		}
	}
	if a.Timestamp >= 0 {
		t := time.Unix(0, a.Timestamp)
		ts := unix.NsecToTimespec(t.UnixNano())
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(f), []unix.Timespec{ts, ts}, 0); err != nil {
			return &fs.PathError{Op: "chtimes", Path: beneath.Clean(a.Path), Err: err}
		}
	}
	return f.Close()
}

func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func symlink(a *pb.FileActionSymlink, root *beneath.Root, owner *Owner) error {
	dir, name, err := root.Parent(a.Newpath)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Symlinkat(a.Oldpath, int(dir.Fd()), name); err != nil {
		return &fs.PathError{Op: "symlink", Path: beneath.Clean(a.Newpath), Err: err}
	}
	return stamp(dir, name, owner, a.Timestamp)
}

func rm(a *pb.FileActionRm, root *beneath.Root) error {
	paths := []string{a.Path}
	if a.AllowWildcard {
		var err error
		if paths, err = glob(root, a.Path); err != nil {
			return err
		}
		if len(paths) == 0 && !a.AllowNotFound {
			return fmt.Errorf("%s not found", a.Path)
		}
	}
	for _, p := range paths {
		if err := rmPath(root, p, a.AllowNotFound); err != nil {
			return err
		}
	}
	return nil
}

func rmPath(root *beneath.Root, p string, allowNotFound bool) error {
	if beneath.Clean(p) == "/" {
		return errors.New("rmPath: invalid empty path")
	}
	dir, name, err := root.Parent(p)
	if err == nil {
		defer dir.Close()
		var st unix.Stat_t
		if err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			err = &fs.PathError{Op: "stat", Path: beneath.Clean(p), Err: err}
		}
	}
	if err != nil {
		if allowNotFound && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
			return nil
		}
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return &fs.PathError{Op: "stat", Path: beneath.Clean(p), Err: pe.Err}
		}
		return err
	}
	// The tree is not changed by anybody else, and the parent is held by its handle.
	if err := os.RemoveAll(path.Join(procPath(dir), name)); err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return &fs.PathError{Op: pe.Op, Path: beneath.Clean(p), Err: pe.Err}
		}
		return err
	}
	return nil
}

// glob returns the paths that match a pattern, sorted. Links that the pattern names are followed,
// those that a wildcard matches are not; what a link leads to outside is inside.
func glob(root *beneath.Root, pattern string) ([]string, error) {
	found := []string{"/"}
	nofollow := 0
	for elem := range strings.SplitSeq(beneath.Clean(pattern), "/") {
		if elem == "" {
			continue
		}
		if _, err := path.Match(elem, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		var next []string
		for _, dir := range found {
			names, err := list(root, dir, elem, nofollow)
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				next = append(next, path.Join(dir, n))
			}
		}
		found = next
		if isPattern(elem) {
			nofollow = unix.O_NOFOLLOW
		}
	}
	return found, nil
}

// list returns the names in dir that match elem, sorted; none if dir is no directory.
func list(root *beneath.Root, dir, elem string, nofollow int) ([]string, error) {
	f, err := root.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|nofollow, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ok, _ := path.Match(elem, e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
