//go:build linux

package git

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/snapshot"
)

const (
	// valueRemote is under which the repository of a remote is found.
	valueRemote = "git.remote"
	// valueWhole says that the repository was left in order. It goes when the daemon is killed
	// while the repository is in use.
	valueWhole = "git.whole"
	// kept is below which the refs are that keep commits.
	kept = "refs/buildkit/"
)

// repository is the bare repository of a remote, in the hands of one job.
type repository struct {
	command
	i   *instance
	ref *cache.MutableRef
	dir string
	// whole says that the repository can be used again; reused that it has been used before.
	whole, reused bool
	releases      []func() error
}

// wants says what is needed besides the files of a commit.
type wants struct {
	// tag is the object of an annotated tag; history are the commits before.
	tag, history bool
	// byCommit asks the server for the commit only.
	byCommit bool
}

// open returns the repository of the remote, an empty one if there is none, or that of the bundle,
// when no other job uses it.
func (i *instance) open(ctx context.Context) (_ *repository, err error) {
	key := i.repository()
	if i.id.From == nil {
		key += " " + objectFormat(i.found.commit)
	}
	unlock, err := i.src.locks.acquire(ctx, key, func() func(error) error {
		return i.env.Scope.Step("waiting for the repository, which another step uses")
	})
	if err != nil {
		return nil, err
	}
	r := &repository{i: i, releases: []func() error{func() error { unlock(); return nil }}}
	defer func() {
		if err != nil {
			r.closeWith(ctx, &err)
		}
	}()
	a, err := i.access(ctx, i.moved())
	if err != nil {
		return nil, err
	}
	r.releases = append(r.releases, a.release)
	if err := r.acquire(ctx, key); err != nil {
		return nil, err
	}
	m, err := r.ref.Mount(ctx, false)
	if err != nil {
		return nil, err
	}
	dir, unmount, err := snapshot.MountTemp(m)
	if err != nil {
		return nil, err
	}
	r.dir = dir
	r.releases = append(r.releases, unmount)
	r.command = a.with("GIT_DIR="+dir, "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if !r.whole {
		if err := r.make(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// make makes the repository in an empty folder.
func (r *repository) make(ctx context.Context) (err error) {
	if r.i.id.From != nil {
		err = r.unbundle(ctx)
	} else {
		err = r.init(objectFormat(r.i.found.commit))
	}
	if err != nil {
		return err
	}
	if err := r.ref.SetValue(valueWhole, []byte{1}, ""); err != nil {
		return err
	}
	r.whole = true
	return nil
}

// acquire gets the record of the remote. One that was not left in order is dropped.
func (r *repository) acquire(ctx context.Context, key string) error {
	trees := r.i.src.cfg.Cache
	for _, id := range trees.Search(valueRemote, key) {
		ref, err := trees.GetMutable(ctx, id)
		if errors.Is(err, cache.ErrLocked) || errors.Is(err, cache.ErrNotFound) || errors.Is(err, cache.ErrLost) {
			continue
		}
		if err != nil {
			return err
		}
		if ref.Value(valueWhole) == nil {
			if err := ref.Discard(ctx); err != nil {
				return err
			}
			continue
		}
		r.ref, r.whole, r.reused = ref, true, true
		return nil
	}
	ref, err := trees.New(ctx, nil, cache.Access{}, cache.NewOpt{
		Description: cache.Description{Type: cache.GitCheckout, Text: "shared git repo for " + r.i.id.Remote.String()},
		Retain:      true,
	})
	if err != nil {
		return err
	}
	r.ref = ref
	return ref.SetValue(valueRemote, []byte(r.i.id.Remote.String()), key)
}

// closeWith gives the repository back; one that is not in order goes.
func (r *repository) closeWith(ctx context.Context, err *error) {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for n := len(r.releases) - 1; n > 0; n-- {
		errs = append(errs, r.releases[n]())
	}
	if r.whole {
		errs = append(errs, r.ref.Release(ctx))
	} else {
		errs = append(errs, r.ref.Discard(ctx))
	}
	errs = append(errs, r.releases[0]())
	if e := errors.Join(errs...); *err == nil {
		*err = e
	}
}

// The hashes that repositories use.
const (
	sha1   = "sha1"
	sha256 = "sha256"
)

// objectFormat returns the hash that a repository with a commit uses.
func objectFormat(commit string) string {
	const digits = 40
	if len(commit) == digits {
		return sha1
	}
	return sha256
}

// init makes an empty repository for objects of a format, see gitrepository-layout(5): git takes longer
// for that than for a file.
func (r *repository) init(format string) error {
	config := "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
	if format != sha1 {
		config = "[core]\n\trepositoryformatversion = 1\n\tfilemode = true\n\tbare = true\n[extensions]\n\tobjectformat = " + format + "\n"
	}
	for _, dir := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"config": config, "HEAD": "ref: refs/heads/main\n"} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
