//go:build linux

package layer

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Upper is a layer as overlayfs has written it.
type Upper struct {
	// Dir is the upper folder.
	Dir string
	// Lowers are the folders below it, the uppermost first.
	Lowers []string
	Xattrs XattrPrefix
	// Removed are names that the layer removes, marked in the folder or not. A folder that is there
	// takes nothing over from what it replaces.
	Removed []string
}

// WriteUpper writes the layer as an archive to w. Only the upper folder is walked; the lower ones
// are looked at where a folder in it hides them, to name what is gone.
func WriteUpper(ctx context.Context, w io.Writer, u Upper) error {
	out := newWriter(w)
	if err := u.Walk(ctx, out); err != nil {
		return err
	}
	return out.close()
}

// Walk tells out what WriteUpper writes.
func (u Upper) Walk(ctx context.Context, out Sink) error {
	walk := upperWalk{Upper: u, ctx: ctx, out: out, removed: byFolder(u.Removed), anew: setOf(u.Removed)}
	defer walk.leave()
	return walk.walk("", u.Lowers, false)
}

type upperWalk struct {
	Upper
	ctx     context.Context //nolint:containedctx // lives as long as the call that it came with
	out     Sink
	removed map[string][]string
	anew    map[string]bool
	// pending are the folders on the way to where the walk is that were copied up and are not
	// changed themselves: they are written before the first change in them, or never.
	pending []pendingDir
	// at is the folder whose entries were looked at last, by its name; nil for none.
	at     *os.File
	atName string
}

// lstat looks at an entry by way of its open folder: to walk down paths takes longer than the rest.
func (u *upperWalk) lstat(name string) (*unix.Stat_t, error) {
	folder, base := path.Split(name)
	if u.at == nil || u.atName != folder {
		f, err := os.OpenFile(filepath.Join(u.Dir, folder), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		u.leave()
		u.at, u.atName = f, folder
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(u.at.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: filepath.Join(u.Dir, name), Err: err}
	}
	return &st, nil
}

func (u *upperWalk) leave() {
	if u.at != nil {
		u.at.Close()
		u.at = nil
	}
}

type pendingDir struct {
	name, file string
	st         *unix.Stat_t
}

// flush writes the pending folders.
func (u *upperWalk) flush() error {
	for _, d := range u.pending {
		if err := u.out.Add(d.name, d.file, d.st); err != nil {
			return err
		}
	}
	u.pending = nil
	return nil
}

func (u *upperWalk) remove(name string) error {
	if err := u.flush(); err != nil {
		return err
	}
	return u.out.Remove(name)
}

// unchanged tells whether a folder is what the layers below show there. Only the uppermost one
// that has it counts: it is what the folder was copied from.
func (u *upperWalk) unchanged(name, file string, st *unix.Stat_t, lowers []string) (bool, error) {
	for _, l := range lowers {
		below := filepath.Join(l, name)
		was, err := lstat(below)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return false, err
		}
		if was.Mode != st.Mode || was.Uid != st.Uid || was.Gid != st.Gid || was.Mtim != st.Mtim {
			return false, nil
		}
		now, err := xattrs(file)
		if err != nil {
			return false, err
		}
		then, err := xattrs(below)
		return err == nil && maps.Equal(now, then), err
	}
	return false, nil
}

// walk writes what is in the folder name. With hides, nothing that the lower layers have there is
// seen any more, and what this folder does not have itself is written as removed.
func (u *upperWalk) walk(name string, lowers []string, hides bool) error {
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	names, err := readNames(filepath.Join(u.Dir, name))
	if err != nil {
		return err
	}
	missing := u.removed[name]
	if hides {
		below, err := u.visible(name, lowers)
		if err != nil {
			return err
		}
		missing = append(below, missing...)
	}
	gone := map[string]bool{}
	for _, n := range missing {
		if _, ok := slices.BinarySearch(names, n); !ok {
			gone[n] = true
		}
	}
	names = slices.AppendSeq(names, maps.Keys(gone))
	slices.Sort(names)
	for _, base := range names {
		child := path.Join(name, base)
		if gone[base] {
			if err := u.remove(child); err != nil {
				return err
			}
			continue
		}
		if err := u.entry(child, lowers, hides); err != nil {
			return err
		}
	}
	return nil
}

func (u *upperWalk) entry(name string, lowers []string, hides bool) error {
	file := filepath.Join(u.Dir, name)
	st, err := u.lstat(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return u.remove(name)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := u.flush(); err != nil {
			return err
		}
		return u.out.Add(name, file, st)
	}
	if u.anew[name] {
		if err := u.remove(name); err != nil {
			return err
		}
		if err := u.out.Add(name, file, st); err != nil {
			return err
		}
		return u.walk(name, nil, false)
	}
	opaque := u.Xattrs.IsOpaque(file)
	same := false
	if !hides && !opaque {
		if same, err = u.unchanged(name, file, st, lowers); err != nil {
			return err
		}
	}
	depth := len(u.pending)
	u.pending = append(u.pending, pendingDir{name, file, st})
	if !same {
		if err := u.flush(); err != nil {
			return err
		}
	}
	if err := u.walk(name, lowers, hides || opaque); err != nil {
		return err
	}
	if len(u.pending) > depth {
		u.pending = u.pending[:depth]
	}
	return nil
}

// visible returns what the lower layers show in the folder name, in no order.
func (u *upperWalk) visible(name string, lowers []string) ([]string, error) {
	seen := map[string]bool{}
	for _, l := range lowers {
		stop, err := u.collect(l, name, seen)
		if err != nil {
			return nil, err
		}
		if stop {
			break
		}
	}
	var names []string
	for n, there := range seen {
		if there {
			names = append(names, n)
		}
	}
	return names, nil
}

// collect adds the names in one layer's folder to seen, false for those it removes, unless a
// layer above has decided already. It reports whether layers further down are hidden.
func (u *upperWalk) collect(lower, name string, seen map[string]bool) (stop bool, err error) {
	// Each folder on the way can hide, and be hidden, as well as the last one.
	for at := lower; ; {
		st, err := os.Lstat(at)
		if errors.Is(err, os.ErrNotExist) {
			return stop, nil
		}
		if err != nil {
			return false, err
		}
		if !st.IsDir() {
			return true, nil
		}
		if u.Xattrs.IsOpaque(at) {
			stop = true
		}
		rest, err := filepath.Rel(at, filepath.Join(lower, name))
		if err != nil {
			return false, err
		}
		if rest == "." {
			break
		}
		at = filepath.Join(at, firstPart(rest))
	}
	entries, err := os.ReadDir(filepath.Join(lower, name))
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if _, ok := seen[e.Name()]; ok {
			continue
		}
		there := true
		if e.Type()&os.ModeCharDevice != 0 {
			st, err := e.Info()
			if err != nil {
				return false, err
			}
			there = !IsWhiteout(st)
		}
		seen[e.Name()] = there
	}
	return stop, nil
}

func firstPart(p string) string {
	for i := range len(p) {
		if p[i] == '/' {
			return p[:i]
		}
	}
	return p
}

// readNames returns the names in a folder, sorted by bytes.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}
