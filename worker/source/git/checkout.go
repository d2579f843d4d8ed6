//go:build linux

package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

// bundleName is the name of the file that a bundle is.
const bundleName = "bundle"

// checkOut makes the tree of the commit, which has been fetched.
func (i *instance) checkOut(ctx context.Context, repo *repository) (*cache.Ref, error) {
	desc := cache.Description{Text: "git snapshot for " + i.id.String()}
	return tree.New(ctx, i.src.cfg.Cache, cache.Access{}, desc, func(dir string) error {
		return i.fill(ctx, repo, dir)
	})
}

// fill writes the tree.
func (i *instance) fill(ctx context.Context, repo *repository, dir string) (err error) {
	switch {
	case i.id.Bundle:
		err = repo.bundle(ctx, i.found, filepath.Join(dir, bundleName))
	default:
		err = i.files(ctx, repo, dir)
	}
	if err == nil && i.env.Compat == compat.V10 {
		err = loosen(dir)
	}
	if err != nil || i.id.MTime != MTimeCommit {
		return err
	}
	t, err := repo.commitTime(ctx, i.found.commit)
	if err != nil {
		return err
	}
	return setTimes(dir, t)
}

// files checks the commit out, in the cheapest way that does.
func (i *instance) files(ctx context.Context, repo *repository, dir string) error {
	modules := false
	if !i.id.SkipSubmodules {
		var err error
		if modules, err = repo.hasModules(ctx, i.found.commit); err != nil {
			return err
		}
	}
	attributed, err := repo.checkSubdir(ctx, i.found.commit, i.id.Subdir, modules)
	if err != nil {
		return err
	}
	if i.id.keepDir() || modules {
		return i.clone(ctx, repo, dir, modules)
	}
	// An index of its own, so that jobs leave no trace of each other.
	index, err := os.MkdirTemp(i.src.cfg.Dir, "index-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(index)
	c := repo.with("GIT_INDEX_FILE=" + filepath.Join(index, "index"))
	if attributed {
		return c.part(ctx, dir, i.found.commit, i.id.Subdir)
	}
	_, err = c.with("GIT_WORK_TREE="+dir).
		run(ctx, runOpt{dir: dir}, "read-tree", "--reset", "-u", i.found.commit+":"+i.id.Subdir)
	return err
}

// part checks a directory out as a part of its commit, which says with attributes what files of it
// are like.
func (c command) part(ctx context.Context, dir, commit, subdir string) error {
	work, err := os.MkdirTemp(dir, "checkout-")
	if err != nil {
		return err
	}
	c = c.with("GIT_WORK_TREE=" + work)
	if _, err := c.run(ctx, runOpt{dir: work}, "read-tree", commit); err != nil {
		return err
	}
	if _, err := c.run(ctx, runOpt{dir: work}, "checkout", "--quiet", "--", subdir); err != nil {
		return err
	}
	return lift(dir, work, subdir)
}

// loosen gives files that nobody runs the mode that they had in the first version.
func loosen(dir string) error {
	const loose, run = 0o666, 0o111
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			if d != nil && d.IsDir() && path == filepath.Join(dir, ".git") {
				return fs.SkipDir
			}
			return err
		}
		st, err := d.Info()
		if err != nil || st.Mode()&run != 0 {
			return err
		}
		return os.Chmod(path, loose)
	})
}

// SubdirError says that a commit does not have the directory that is wanted.
type SubdirError struct {
	Subdir string
	// Part is what is no directory; empty if there is nothing of that name.
	Part string
}

// Error returns the text that clients know.
func (e *SubdirError) Error() string {
	if e.Part != "" {
		return fmt.Sprintf("git subpath %q contains non-directory %q", e.Subdir, e.Part)
	}
	return fmt.Sprintf("invalid subdir %s: failed to lstat %q: statat %s: no such file or directory", e.Subdir, e.Subdir, e.Subdir)
}

// attributesName is the name of the files that say how files of their directory, and of those
// below, are checked out.
const attributesName = ".gitattributes"

// checkSubdir makes sure that every part of a path is a directory of the commit: a link could lead
// anywhere. What is in a submodule is looked at when it is there. It tells whether there are
// attributes above.
func (r *repository) checkSubdir(ctx context.Context, commit, subdir string, modules bool) (attributed bool, err error) {
	if subdir == "" {
		return false, nil
	}
	at := ""
	for part := range strings.SplitSeq(subdir, "/") {
		attributes := path.Join(at, attributesName)
		at = path.Join(at, part)
		out, err := r.run(ctx, runOpt{}, "ls-tree", "-z", "--full-tree", commit, "--", at, attributes)
		if err != nil {
			return false, err
		}
		attributed = attributed || entryKind(out, attributes) != ""
		switch kind := entryKind(out, at); {
		case kind == "tree":
		case kind == "":
			return false, &SubdirError{Subdir: subdir}
		case kind == "commit" && modules:
			return attributed, nil
		default:
			return false, &SubdirError{Subdir: subdir, Part: at}
		}
	}
	return attributed, nil
}

// entryKind returns the type of an entry in the output of ls-tree, empty if it is not there.
func entryKind(out []byte, name string) string {
	for entry := range bytes.SplitSeq(out, []byte{0}) {
		head, path, ok := strings.Cut(string(entry), "\t")
		if fields := strings.Fields(head); ok && path == name && len(fields) == 3 {
			return fields[1]
		}
	}
	return ""
}

// hasModules tells whether a commit has submodules.
func (r *repository) hasModules(ctx context.Context, commit string) (bool, error) {
	const file = ".gitmodules"
	out, err := r.run(ctx, runOpt{}, "ls-tree", "-z", "--full-tree", commit, "--", file)
	return entryKind(out, file) == "blob", err
}

// bundle writes a bundle of the commit and all before it. Its names are those of the remote, so that
// a clone of the file is like one of the remote.
func (r *repository) bundle(ctx context.Context, want *resolved, file string) error {
	names := []string{"HEAD"}
	steps := [][]string{{"update-ref", "--no-deref", "HEAD", want.commit}}
	if strings.HasPrefix(want.ref, "refs/") {
		names = append(names, want.ref)
		steps = append(steps, []string{"update-ref", want.ref, want.object()})
	}
	steps = append(steps, append([]string{"bundle", "create", "--quiet", file}, names...))
	if len(names) > 1 {
		steps = append(steps, []string{"update-ref", "-d", want.ref})
	}
	for _, args := range steps {
		if _, err := r.run(ctx, runOpt{}, args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// commitTime returns the time of a commit.
func (r *repository) commitTime(ctx context.Context, commit string) (time.Time, error) {
	out, err := r.run(ctx, runOpt{}, "cat-file", "commit", commit)
	if err != nil {
		return time.Time{}, err
	}
	return committed(out)
}

// committed reads the time of a commit from its object.
func committed(object []byte) (time.Time, error) {
	for line := range bytes.Lines(object) {
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		rest, ok := bytes.CutPrefix(line, []byte("committer "))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest[bytes.LastIndexByte(rest, '>')+1:])
		if len(fields) == 0 {
			break
		}
		sec, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			break
		}
		return time.Unix(sec, 0), nil
	}
	return time.Time{}, errors.New("the commit has no time")
}

// setTimes gives all below dir one time, directories and links too.
func setTimes(dir string, t time.Time) error {
	ts := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
}
