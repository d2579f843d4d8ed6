package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/dchapes-mode"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/internal/beneath"
)

// copyAction copies what its source path, a pattern perhaps, names.
func copyAction(ctx context.Context, a *pb.FileActionCopy, dst *beneath.Root, trees Trees, owner *Owner) error {
	srcDir := trees.Source
	if srcDir == "" {
		empty, err := os.MkdirTemp("", "buildkit-empty")
		if err != nil {
			return err
		}
		defer os.Remove(empty)
		srcDir = empty
	}
	src, err := beneath.Open(srcDir)
	if err != nil {
		return err
	}
	defer src.Close()
	c, err := newCopier(ctx, a, src, dst, owner)
	if err != nil {
		return err
	}
	sources, err := c.sources()
	if err != nil || len(sources) == 0 {
		return err
	}
	if err := c.makeParents(); err != nil {
		return err
	}
	for _, s := range sources {
		if err := c.copy(s); err != nil {
			return err
		}
	}
	return c.made.restamp(dst, a.Timestamp)
}

// copier copies for one action.
type copier struct {
	ctx      context.Context //nolint:containedctx // of the one action
	a        *pb.FileActionCopy
	src, dst *beneath.Root
	owner    *Owner
	// mode changes permissions; nil keeps them.
	mode func(fs.FileMode) fs.FileMode
	// octal is what mode sets, if that does not depend on what was there.
	octal            *fs.FileMode
	include, exclude *patternmatcher.PatternMatcher
	// links are the files with several names that were copied, by what they are in the source.
	links map[inode]string
	made  made
}

type inode struct{ dev, ino uint64 }

func newCopier(ctx context.Context, a *pb.FileActionCopy, src, dst *beneath.Root, owner *Owner) (*copier, error) {
	c := &copier{ctx: ctx, a: a, src: src, dst: dst, owner: owner, links: map[inode]string{}}
	err := c.parseMode()
	if err != nil {
		return nil, err
	}
	if len(a.IncludePatterns) > 0 {
		if c.include, err = patternmatcher.New(a.IncludePatterns); err != nil {
			return nil, fmt.Errorf("invalid includepatterns: %s: %w", a.IncludePatterns, err)
		}
	}
	if len(a.ExcludePatterns) > 0 {
		if c.exclude, err = patternmatcher.New(a.ExcludePatterns); err != nil {
			return nil, fmt.Errorf("invalid excludepatterns: %s: %w", a.ExcludePatterns, err)
		}
	}
	return c, nil
}

// parseMode reads the mode of the action: octal digits set, others change, as chmod has it.
func (c *copier) parseMode() error {
	if c.a.ModeStr == "" {
		if c.a.Mode >= 0 {
			c.setOctal(uint32(c.a.Mode))
		}
		return nil
	}
	if n, err := strconv.ParseUint(c.a.ModeStr, 8, 32); err == nil {
		if n > 0o7777 {
			return fmt.Errorf("invalid mode %q", c.a.ModeStr)
		}
		c.setOctal(uint32(n))
		return nil
	}
	set, err := mode.Parse(c.a.ModeStr)
	if err != nil {
		return fmt.Errorf("invalid mode %q: %w", c.a.ModeStr, err)
	}
	c.mode = set.Apply
	return nil
}

func (c *copier) setOctal(m uint32) {
	perm := fileMode(m)
	c.octal = &perm
	c.mode = func(fs.FileMode) fs.FileMode { return perm }
}

// madePerm returns the permissions of a directory that is made for a copy to go into: those that
// are set without the special bits, which are for what is copied, or else otherwise.
func (c *copier) madePerm(otherwise fs.FileMode) fs.FileMode {
	if c.octal == nil {
		return otherwise
	}
	return c.octal.Perm()
}

// fileMode returns the Go form of the permission bits of a unix mode.
func fileMode(m uint32) fs.FileMode {
	out := fs.FileMode(m & 0o777)
	for _, b := range modeBits {
		if m&b.unix != 0 {
			out |= b.mode
		}
	}
	return out
}

var modeBits = []struct {
	unix uint32
	mode fs.FileMode
}{{unix.S_ISUID, fs.ModeSetuid}, {unix.S_ISGID, fs.ModeSetgid}, {unix.S_ISVTX, fs.ModeSticky}}

// unixPerm returns the permission bits of a Go mode.
func unixPerm(m fs.FileMode) uint32 {
	out := uint32(m.Perm())
	for _, b := range modeBits {
		if m&b.mode != 0 {
			out |= b.unix
		}
	}
	return out
}

// sources returns the paths to copy.
func (c *copier) sources() ([]string, error) {
	if !c.a.AllowWildcard || !strings.ContainsAny(c.a.Src, `*?[\`) {
		return []string{c.a.Src}, nil
	}
	found, err := glob(c.src, c.a.Src)
	if err != nil {
		return nil, err
	}
	// A path that only has escapes names one file; only a pattern may match none.
	if len(found) == 0 && (!c.a.AllowEmptyWildcard || !isPattern(c.a.Src)) {
		return nil, fmt.Errorf("%s not found", c.a.Src)
	}
	for i := range found {
		if isDirPath(c.a.Src) {
			found[i] += "/"
		}
	}
	return found, nil
}

// isPattern tells whether a path has a wildcard that is not escaped.
func isPattern(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// isDirPath tells whether a path can only mean a directory.
func isDirPath(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "." || p == ""
}

// makeParents makes the directory that the copies go into. Unless the action asks for all of its
// parents, only the last element of the destination may be missing.
func (c *copier) makeParents() error {
	dir := beneath.Clean(c.a.Dest)
	if !c.a.CreateDestPath {
		h, err := c.dst.Handle(path.Dir(dir), false)
		if err != nil {
			return fmt.Errorf("failed to stat %s: %w", c.a.Dest, lstatError(err))
		}
		h.Close()
	}
	if !isDirPath(c.a.Dest) {
		dir = path.Dir(dir)
	}
	// Parents of a directory that only contents are copied into get what the source has.
	h, _, err := c.dst.MkdirAll(dir, c.made.with(stamped(unixPerm(c.madePerm(0o755)), c.owner, c.a.Timestamp)))
	if err != nil {
		return err
	}
	return h.Close()
}

// copy copies one source to its place.
func (c *copier) copy(src string) error {
	from, err := c.open(src)
	if err != nil {
		return err
	}
	defer from.close()
	if c.a.AttemptUnpackDockerCompatibility && from.isFile() {
		done, err := c.unpack(from)
		if done || err != nil {
			return err
		}
	}
	if len(c.a.RequiredPaths) > 0 {
		if err := c.require(); err != nil {
			return err
		}
	}
	target, err := c.target(src, from)
	if err != nil {
		return err
	}
	dir, name, err := c.dst.Parent(target)
	if err != nil {
		return err
	}
	defer dir.Close()
	t := &place{dir: dir, name: name, path: target}
	_, err = c.entry(from, t, "", top, patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{})
	return err
}

// open opens a source: the entry itself, or what a link there leads to.
func (c *copier) open(src string) (*place, error) {
	p := beneath.Clean(src)
	if c.a.FollowSymlink {
		var err error
		if p, err = c.real(c.src, p); err != nil {
			return nil, lstatError(err)
		}
	}
	dir, name, err := c.src.Parent(p)
	if err != nil {
		return nil, lstatError(err)
	}
	from := &place{dir: dir, name: name, path: p}
	if err := from.lstat(); err != nil {
		dir.Close()
		return nil, err
	}
	return from, nil
}

// real returns the path of what p leads to, without links.
func (c *copier) real(r *beneath.Root, p string) (string, error) {
	top, err := hostPath(r, "/")
	if err != nil {
		return "", err
	}
	host, err := hostPath(r, p)
	if err != nil {
		return "", err
	}
	return beneath.Clean(strings.TrimPrefix(host, top)), nil
}

// hostPath returns where something in a tree is on the host.
func hostPath(r *beneath.Root, p string) (string, error) {
	h, err := r.Handle(p, false)
	if err != nil {
		return "", err
	}
	defer h.Close()
	return os.Readlink(procPath(h))
}

// lstatError words an error like one of lstat.
func lstatError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: "lstat", Path: pe.Path, Err: pe.Err}
	}
	return err
}

// target returns the path that a source is copied to, without links: below the destination if that
// is a directory, or can only be one, and the source is not merely a directory's contents.
func (c *copier) target(src string, from *place) (string, error) {
	dest, err := c.dst.Resolve(c.a.Dest)
	if err != nil || from.isDir() && (c.a.DirCopyContents || strings.HasSuffix(src, "/.")) {
		return dest, err
	}
	h, err := c.dst.Handle(dest, true)
	switch {
	case errors.Is(err, unix.ENOENT):
		if !isDirPath(c.a.Dest) {
			return dest, nil
		}
	case err != nil:
		return "", err
	default:
		defer h.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(h.Fd()), &st); err != nil {
			return "", err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && !isDirPath(c.a.Dest) {
			return dest, nil
		}
	}
	return path.Join(dest, path.Base(beneath.Clean(src))), nil
}

// require makes sure that the required patterns, which begin at the root of the source tree, match
// something.
func (c *copier) require() error {
	for _, p := range c.a.RequiredPaths {
		found, err := glob(c.src, p)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return &fs.PathError{Op: "lstat", Path: beneath.Clean(p), Err: unix.ENOENT}
		}
	}
	return nil
}
