//go:build linux

package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fetched is below which the refs of remotes are until the commit is found among them.
const fetched = "refs/buildkit-fetch/"

// fetch makes sure that a commit is here, with what is wanted of it.
func (r *repository) fetch(ctx context.Context, want *resolved, w wants) error {
	object := want.commit
	if w.tag {
		object = want.object()
	}
	if r.kept(ctx, object) && (!w.history || !r.shallow()) {
		return nil
	}
	if r.i.id.From != nil {
		if !r.keep(ctx, object) {
			return r.notBundled(object)
		}
		return nil
	}
	if err := r.tidy(ctx); err != nil {
		return err
	}
	var failure error
	for _, args := range r.attempts(object, want.ref, w) {
		args = slices.Concat([]string{"--progress", "--force", "--no-tags", "--no-write-fetch-head"}, args)
		_, err := r.run(ctx, runOpt{show: true, remote: true}, "fetch", args...)
		if err != nil {
			if failure = err; !worthMore(err) {
				break
			}
			continue
		}
		failure = nil
		if r.kept(ctx, object) || r.keep(ctx, object) {
			return nil
		}
	}
	if failure != nil && (want.ref == "" || !worthMore(failure)) {
		return r.i.explain(failure)
	}
	return fmt.Errorf("fetched ref %s does not match expected commit %s and commit can not be found in the repository", cmp.Or(want.ref, object), object)
}

// attempts are the arguments of fetches, the one that brings least first. Old servers give only
// what a ref points at, dumb ones everything.
func (r *repository) attempts(object, ref string, w wants) [][]string {
	remote := r.i.remote()
	byObject := []string{"--", remote, "+" + object + ":" + kept + object}
	byRef := []string{"--", remote, "+" + ref + ":" + fetched + "ref"}
	all := []string{"--prune", "--", remote, "+refs/heads/*:" + fetched + "heads/*", "+refs/tags/*:" + fetched + "tags/*"}
	one := func(args []string) []string { return append([]string{"--depth=1"}, args...) }
	full := func(args []string) []string {
		if r.shallow() {
			return append([]string{"--unshallow"}, args...)
		}
		return args
	}
	var list [][]string
	if !w.history {
		list = append(list, one(byObject))
	}
	if w.byCommit {
		return append(list, full(byObject))
	}
	if ref != "" {
		if !w.history {
			list = append(list, one(byRef))
		}
		list = append(list, full(byRef))
	} else if w.history {
		list = append(list, full(byObject))
	}
	return append(list, full(all))
}

// worthMore tells whether a fetch failed because of how it asked.
func worthMore(err error) bool {
	var failed *CommandError
	if !errors.As(err, &failed) {
		return false
	}
	return slices.ContainsFunc([]string{
		"shallow", "unadvertised object", "not our ref", "find remote ref", "does not support", "remote did not send all necessary objects",
	}, func(text string) bool { return strings.Contains(failed.Stderr, text) })
}

// kept tells whether an object is here with all that belongs to it.
func (r *repository) kept(ctx context.Context, object string) bool {
	// A ref is a file of its own until refs are packed.
	if _, err := os.Stat(filepath.Join(r.dir, kept, object)); err == nil {
		return true
	}
	if _, err := os.Stat(filepath.Join(r.dir, "packed-refs")); err != nil {
		return false
	}
	_, err := r.run(ctx, runOpt{}, "rev-parse", "--quiet", "--verify", "--end-of-options", kept+object)
	return err == nil
}

// keep keeps an object that was fetched; false if it was not.
func (r *repository) keep(ctx context.Context, object string) bool {
	_, err := r.run(ctx, runOpt{}, "update-ref", kept+object, object)
	return err == nil
}

// shallow tells whether commits end somewhere.
func (r *repository) shallow() bool {
	st, err := os.Stat(filepath.Join(r.dir, "shallow"))
	return err == nil && st.Size() > 0
}

// maxPacks is how many packs, one of each fetch, are read before they are made one.
const maxPacks = 50

// tidy removes what a git that was killed left: locks, which would be waited for, and parts of
// packs. It joins packs that have become many.
func (r *repository) tidy(ctx context.Context) error {
	packs := 0
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, r.dir+"/")
		switch {
		case d.IsDir() && strings.HasPrefix(rel, "objects/") && rel != "objects/pack" && rel != "objects/info":
			return fs.SkipDir
		case strings.HasSuffix(rel, ".lock"), strings.HasPrefix(rel, "objects/pack/tmp_"):
			return os.Remove(path)
		case strings.HasSuffix(rel, ".pack"):
			packs++
		}
		return nil
	})
	if err != nil || packs < maxPacks {
		return err
	}
	_, err = r.run(ctx, runOpt{}, "gc", "--quiet", "--prune=now")
	return err
}
