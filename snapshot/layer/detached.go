//go:build linux

package layer

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNeedsParent says that a layer cannot be unpacked without the tree that it stands on: it has a
// hard link to a file there, or names files by way of symbolic links there. Apply can unpack it.
var ErrNeedsParent = errors.New("layer cannot be unpacked on its own")

// Detached is a layer that was unpacked on its own, as an upper folder of overlayfs, before the
// tree that it stands on was there.
type Detached struct {
	Applied

	dir    string
	xattrs XattrPrefix
	// hasRoot says that the archive had an entry for the root.
	hasRoot bool
	// implied are the folders that no entry named, those above before those below; those that
	// were needed for a file, not only for the mark of a removed one, have true.
	implied []string
	needed  map[string]bool
	// marked are the folders with marks of removed files.
	marked []string
}

// ApplyDetached unpacks the uncompressed archive r into the upper folder dir, which is empty. It
// reads r up to the end of the archive, not further. Attach makes it complete. The errors are those
// of Apply, and ErrNeedsParent.
func ApplyDetached(ctx context.Context, dir string, r io.Reader, xattrs XattrPrefix) (*Detached, error) {
	u := &detachedUpper{xattrs: xattrs, implied: map[string]bool{}, marked: map[string]bool{}}
	applied, err := apply(ctx, dir, r, &applier{alone: u})
	if err != nil {
		return nil, err
	}
	return &Detached{Applied: applied, dir: dir, xattrs: xattrs, hasRoot: u.hasRoot, implied: sorted(u.implied), needed: u.implied, marked: sorted(u.marked)}, nil
}

// NeedsTree reports whether Attach will look at the tree below.
func (d *Detached) NeedsTree() bool { return !d.hasRoot || len(d.implied)+len(d.marked) > 0 }

// Attach gives folders that no entry named what they have in the tree below, mounted at tree. The
// error is ErrNeedsParent if that tree gives the layer another meaning than it was unpacked with.
func (d *Detached) Attach(tree string) error {
	upper, err := openRoot(d.dir)
	if err != nil {
		return err
	}
	defer unix.Close(upper)
	lower, err := openRoot(tree)
	if err != nil {
		return err
	}
	defer unix.Close(lower)
	if !d.hasRoot {
		if err := copyFolder(upper, lower); err != nil {
			return err
		}
	}
	var only []string
	for _, name := range d.implied {
		seen, err := d.attach(upper, lower, name)
		if err != nil {
			return &EntryError{name, err}
		}
		if !seen && !d.needed[name] {
			only = append(only, name)
		}
	}
	for _, name := range d.marked {
		if err := d.dropMarks(upper, lower, name); err != nil {
			return &EntryError{name, err}
		}
	}
	// What was made only to remove something where there is nothing.
	for _, name := range slices.Backward(only) {
		err := unix.Unlinkat(upper, name, unix.AT_REMOVEDIR)
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			return &EntryError{name, err}
		}
	}
	return nil
}

func openRoot(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// attach looks at one folder that no entry named and reports whether it is seen in the tree below.
func (d *Detached) attach(upper, lower int, name string) (seen bool, err error) {
	up, err := openBeneath(upper, name)
	if err != nil {
		return true, nil // a later entry has removed or replaced it
	}
	defer unix.Close(up)
	if seen, err := d.seen(upper, lower, name); !seen || err != nil {
		return false, err
	}
	low, err := openBeneath(lower, name)
	if err != nil {
		return true, err
	}
	defer unix.Close(low)
	return true, copyFolder(up, low)
}

// openBeneath opens a folder that is reached without symbolic links.
func openBeneath(root int, name string) (int, error) {
	return unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// seen reports whether a folder is in the tree below and not hidden by the layer.
func (d *Detached) seen(upper, lower int, name string) (bool, error) {
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		if at != "" && d.xattrs.IsOpaque(procPath(upper, at)) {
			return false, nil
		}
		at = path.Join(at, part)
		var st unix.Stat_t
		err := unix.Fstatat(lower, at, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, nil
		case err != nil:
			return false, err
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		case d.isImplied(at):
			// Perhaps a link, by way of which the entry was meant.
			return false, ErrNeedsParent
		default:
			return false, nil // an entry of the layer has replaced it
		}
	}
	return true, nil
}

// copyFolder gives an open folder the looks of another one.
func copyFolder(dst, src int) error {
	if err := CopyMetadata(procPath(dst, "."), procPath(src, ".")); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(src, ".", &st, 0); err != nil {
		return err
	}
	return unix.UtimesNanoAt(dst, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

func (d *Detached) isImplied(name string) bool {
	_, ok := slices.BinarySearch(d.implied, name)
	return ok
}

// dropMarks removes the marks of removed files from a folder that is not merged with one below.
// There overlayfs would show them, as names of files that are not there.
func (d *Detached) dropMarks(upper, lower int, name string) error {
	up, err := openBeneath(upper, name)
	if err != nil || name == "." {
		return nil // a later entry has removed or replaced it
	}
	defer unix.Close(up)
	if !d.xattrs.IsOpaque(procPath(up, ".")) {
		if seen, err := d.seen(upper, lower, name); seen || err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(procPath(up, "."))
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(up, ".", &st, 0); err != nil {
		return err
	}
	for _, e := range entries {
		if isWhiteoutAt(up, e.Name()) {
			if err := unix.Unlinkat(up, e.Name(), 0); err != nil {
				return err
			}
		}
	}
	return unix.UtimesNanoAt(up, ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// detachedUpper is what an applier does differently in an upper folder without what is below.
type detachedUpper struct {
	xattrs  XattrPrefix
	hasRoot bool
	// implied are folders that no entry has named yet, with true if a file needs them.
	implied map[string]bool
	// marked are folders with marks of removed files.
	marked map[string]bool
}

// need notes that the folder dir was opened for a file; err says how that went.
func (u *detachedUpper) need(dir string, err error) error {
	if err != nil {
		return u.explain(err)
	}
	for ; dir != "."; dir = path.Dir(dir) {
		needed, implied := u.implied[dir]
		if needed {
			break
		}
		if implied {
			u.implied[dir] = true
		}
	}
	return nil
}

// sorted returns names of folders, those above before those below: the name of a folder begins with
// that of the one it is in.
func sorted[V any](names map[string]V) []string { return slices.Sorted(maps.Keys(names)) }

// remove leaves the mark of a removed file.
func (u *detachedUpper) remove(a *applier, dir, name string) error {
	parent, err := a.parent(dir)
	if err != nil {
		return u.explain(err)
	}
	if err := removeAll(parent, name); err != nil {
		return err
	}
	u.marked[dir] = true
	return unix.Mknodat(parent, name, unix.S_IFCHR, 0)
}

// opaque marks a folder whose contents below are hidden.
func (u *detachedUpper) opaque(a *applier, dir string) error {
	parent, err := a.parent(dir)
	if err != nil {
		return u.explain(err)
	}
	if dir == "." {
		// Overlayfs takes no such mark of the root.
		return ErrNeedsParent
	}
	return u.xattrs.SetOpaque(procPath(parent, "."))
}

// explain turns errors that the tree below may have an answer for.
func (u *detachedUpper) explain(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EEXIST) {
		return ErrNeedsParent
	}
	return err
}

// isWhiteoutAt reports whether a name in a folder is the mark of a removed file.
func isWhiteoutAt(parent int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
