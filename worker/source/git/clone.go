//go:build linux

package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// clone checks the commit out with a repository of its own, which submodules and those who keep
// .git need.
func (i *instance) clone(ctx context.Context, repo *repository, dir string, modules bool) error {
	work := dir
	if i.id.Subdir != "" {
		var err error
		if work, err = os.MkdirTemp(dir, "checkout-"); err != nil {
			return err
		}
	}
	c := &clone{command: repo.without("GIT_DIR"), dir: work}
	if err := i.populate(ctx, repo, c); err != nil {
		return err
	}
	if modules {
		opt := runOpt{dir: c.dir, show: true, remote: true}
		if _, err := c.run(ctx, opt, "submodule", "update", "--progress", "--init", "--recursive", "--depth=1"); err != nil {
			return i.explain(err)
		}
	}
	switch {
	case i.id.keepDir():
		return c.forget(ctx)
	case i.id.Subdir != "":
		if err := c.removeGit(modules); err != nil {
			return err
		}
		return lift(dir, work, i.id.Subdir)
	}
	return c.removeGit(modules)
}

// clone is a repository with files.
type clone struct {
	command
	dir string
}

func (c *clone) git(ctx context.Context, verb string, args ...string) ([]byte, error) {
	return c.run(ctx, runOpt{dir: c.dir}, verb, args...)
}

// without returns a command that has not got a variable.
func (c command) without(name string) command {
	c.env = slices.DeleteFunc(slices.Clone(c.env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
	return c
}

// ofFiles returns a command for the fetches that are from files of ours.
func (c command) ofFiles() command {
	return c.without("GIT_ALLOW_PROTOCOL").with("GIT_ALLOW_PROTOCOL=file")
}

// populate fetches the commit from the shared repository, and checks it out.
func (i *instance) populate(ctx context.Context, repo *repository, c *clone) error {
	object := i.found.commit
	if i.id.keepDir() {
		object = i.found.object()
	}
	local := *c
	local.command = c.ofFiles()
	refspec := "+" + kept + object
	if ref := i.found.ref; strings.HasPrefix(ref, "refs/") {
		refspec += ":" + ref
	}
	for _, step := range []struct {
		c    *clone
		verb string
		args []string
	}{
		{c, "init", []string{"--quiet", "--object-format=" + objectFormat(object), "--", c.dir}},
		{c, "remote", []string{"add", "--", "origin", i.remote()}},
		{&local, "fetch", []string{"--quiet", "--depth=1", "--no-tags", "--update-head-ok", "--", "file://" + repo.dir, refspec}},
		{c, "checkout", []string{"--quiet", "--force", "--detach", i.found.commit, "--"}},
	} {
		if _, err := step.c.git(ctx, step.verb, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// forget removes from .git what differs from one checkout to the next.
func (c *clone) forget(ctx context.Context) error {
	if _, err := c.git(ctx, "reflog", "expire", "--expire=now", "--all"); err != nil {
		return err
	}
	for _, name := range []string{"FETCH_HEAD", "ORIG_HEAD"} {
		if err := os.Remove(filepath.Join(c.dir, ".git", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeGit removes the repository, and the files by which submodules find theirs.
func (c *clone) removeGit(modules bool) error {
	if err := os.RemoveAll(filepath.Join(c.dir, ".git")); err != nil || !modules {
		return err
	}
	return filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" && !d.IsDir() {
			return os.Remove(path)
		}
		return nil
	})
}

// lift moves what is in a directory of work up to dir, and removes work.
func lift(dir, work, subdir string) (err error) {
	root, err := os.OpenRoot(work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close(), os.RemoveAll(work)) }()
	at := ""
	for part := range strings.SplitSeq(subdir, "/") {
		at = filepath.Join(at, part)
		st, err := root.Lstat(at)
		if errors.Is(err, os.ErrNotExist) {
			return &SubdirError{Subdir: subdir}
		}
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return &SubdirError{Subdir: subdir, Part: at}
		}
	}
	from := filepath.Join(work, subdir)
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(work) {
			return fmt.Errorf("the name %s is taken", e.Name())
		}
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
