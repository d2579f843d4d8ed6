package checksum

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/snapshot"
)

// maxLinks bounds how many links a path may lead through.
const maxLinks = 255

// view is a tree being digested: what its table lacks is read from the tree, which is mounted
// when that first happens.
type view struct {
	t   *table
	ref *cache.Ref
	acc cache.Access

	root    string
	release func() error
}

func (v *view) close() error {
	if v.release == nil {
		return nil
	}
	return v.release()
}

// host returns where a path is on the host.
func (v *view) host(ctx context.Context, p string) (string, error) {
	if v.release == nil {
		m, err := v.ref.Mount(ctx, true, v.acc)
		if err != nil {
			return "", err
		}
		if v.root, v.release, err = snapshot.MountTemp(m); err != nil {
			return "", err
		}
	}
	return filepath.Join(v.root, filepath.FromSlash(p)), nil
}

// stat returns the entry at a path whose parents hold no links.
func (v *view) stat(ctx context.Context, p string) (Entry, error) {
	if v.t.seed != nil {
		e, ok := v.t.seed.stat(p)
		if !ok {
			return Entry{}, fs.ErrNotExist
		}
		return e, nil
	}
	e, ok := v.t.entries[p]
	if ok {
		return e, nil
	}
	host, err := v.host(ctx, p)
	if err != nil {
		return Entry{}, err
	}
	if e, err = lookup(host); err != nil {
		return Entry{}, inTree(err, p)
	}
	v.t.entries[p] = e
	return e, nil
}

// list returns the names in a directory, sorted.
func (v *view) list(ctx context.Context, p string) ([]string, error) {
	if v.t.seed != nil {
		return v.t.seed.names(p), nil
	}
	if names, ok := v.t.names[p]; ok {
		return names, nil
	}
	host, err := v.host(ctx, p)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return nil, inTree(err, p)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	v.t.names[p] = names
	return names, nil
}

// resolve follows the links in a path; the last element only if follow. Links that lead out of
// the tree lead back to its root.
func (v *view) resolve(ctx context.Context, p string, follow bool) (string, error) {
	todo := strings.Split(clean(p), "/")
	at := ""
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at, _ = split(at)
			continue
		}
		next := path.Join(at, name)
		e, err := v.stat(ctx, next)
		if err != nil {
			return "", missing(err, p)
		}
		if e.Kind == Symlink && (len(todo) > 0 || follow) {
			if links++; links > maxLinks {
				return "", fmt.Errorf("%q: too many links", p)
			}
			if path.IsAbs(e.Link) {
				at = ""
			}
			todo = append(strings.Split(e.Link, "/"), todo...)
			continue
		}
		if e.Kind != Dir && len(todo) > 0 {
			return "", &NotFoundError{Path: p}
		}
		at = next
	}
	return at, nil
}

// inTree takes the path of the host out of an error.
func inTree(err error, p string) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: "/" + p, Err: pe.Err}
	}
	return err
}

func missing(err error, p string) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) {
		return &NotFoundError{Path: p}
	}
	return err
}

func clean(p string) string { return strings.TrimPrefix(path.Join("/", p), "/") }

// digest returns the digest of what opt says of a path.
func (v *view) digest(ctx context.Context, p string, opt Opt) (digest.Digest, error) {
	if !opt.Wildcard {
		at, err := v.resolve(ctx, p, opt.FollowLinks)
		if err != nil {
			return "", err
		}
		sum, err := v.part(ctx, at, opt)
		return encode(sum), err
	}
	matches, err := v.glob(ctx, p)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, m := range matches {
		at := m
		if opt.FollowLinks {
			if at, err = v.resolve(ctx, m, true); err != nil {
				return "", err
			}
		}
		sum, err := v.part(ctx, at, opt)
		if err != nil {
			return "", err
		}
		h.Write(appendString(nil, path.Base(m)))
		h.Write(sum[:])
	}
	return encode(Sum(h.Sum(nil))), nil
}

func encode(s Sum) digest.Digest { return digest.NewDigestFromBytes(digest.SHA256, s[:]) }

// part digests what lies at a resolved path, filtered.
func (v *view) part(ctx context.Context, at string, opt Opt) (Sum, error) {
	if len(opt.Required) > 0 {
		if err := v.require(ctx, opt.Required); err != nil {
			return Sum{}, err
		}
	}
	if err := v.hash(ctx, at); err != nil {
		return Sum{}, err
	}
	if len(opt.Include) == 0 && len(opt.Exclude) == 0 {
		return v.tree(ctx, at)
	}
	return v.filtered(ctx, at, opt)
}

// tree digests an entry with all below it.
func (v *view) tree(ctx context.Context, p string) (Sum, error) {
	e, err := v.stat(ctx, p)
	if err != nil {
		return Sum{}, err
	}
	if e.Kind != Dir {
		return e.own(), nil
	}
	if v.t.seed != nil {
		start, end, _ := v.t.seed.below(p)
		return v.t.treeOf(p, e, start, end), nil
	}
	if sum, ok := v.t.sums[p]; ok {
		return sum, nil
	}
	names, err := v.list(ctx, p)
	if err != nil {
		return Sum{}, err
	}
	h := sha256.New()
	own := e.own()
	h.Write(own[:])
	for _, name := range names {
		sum, err := v.tree(ctx, path.Join(p, name))
		if err != nil {
			return Sum{}, err
		}
		h.Write(appendString(nil, name))
		h.Write(sum[:])
	}
	sum := Sum(h.Sum(nil))
	v.t.sums[p] = sum
	return sum, nil
}

// treeOf digests a directory of a seed, whose entries are those from start to end.
func (t *table) treeOf(p string, e Entry, start, end int) Sum {
	if sum, ok := t.sums[p]; ok {
		return sum
	}
	h := sha256.New()
	own := e.own()
	h.Write(own[:])
	var buf []byte
	for i := start; i < end; i = int(t.seed.ends[i]) {
		n := &t.seed.list[i]
		var sum Sum
		if n.Kind == Dir {
			sum = t.treeOf(n.Path, n.Entry, i+1, int(t.seed.ends[i]))
		} else {
			sum = n.own()
		}
		_, name := split(n.Path)
		buf = appendString(buf[:0], name)
		h.Write(append(buf, sum[:]...))
	}
	sum := Sum(h.Sum(nil))
	t.sums[p] = sum
	return sum
}

// hash reads the files below a path whose bytes are not digested yet, several at a time.
func (v *view) hash(ctx context.Context, p string) error {
	todo, err := v.unhashed(ctx, p)
	if err != nil || len(todo) == 0 {
		return err
	}
	if _, err := v.host(ctx, p); err != nil {
		return err
	}
	sums := make([]Sum, len(todo))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range todo {
		eg.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			sums[i], err = hashFile(filepath.Join(v.root, filepath.FromSlash(p)))
			return inTree(err, p)
		})
	}
	if err := eg.Wait(); err != nil {
		return err
	}
	for i, p := range todo {
		v.t.setContent(p, sums[i])
	}
	return nil
}

// unhashed returns the files at and below a path whose bytes are not digested yet.
func (v *view) unhashed(ctx context.Context, p string) (todo []string, err error) {
	if v.t.seed == nil {
		err := v.walk(ctx, p, func(p string, e Entry) error {
			if e.Kind == File && !e.Hashed {
				todo = append(todo, p)
			}
			return nil
		})
		return todo, err
	}
	start, end, ok := v.t.seed.below(p)
	if !ok {
		return nil, fs.ErrNotExist
	}
	if _, known := v.t.sums[p]; known {
		return nil, nil
	}
	for _, e := range v.t.seed.list[max(start-1, 0):end] {
		if e.Kind == File && !e.Hashed {
			todo = append(todo, e.Path)
		}
	}
	return todo, nil
}

func hashFile(p string) (Sum, error) {
	f, err := os.OpenFile(p, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Sum{}, err
	}
	return Sum(h.Sum(nil)), nil
}

// walk visits an entry and all below it that are not part of a directory whose digest is known.
func (v *view) walk(ctx context.Context, p string, fn func(string, Entry) error) error {
	if _, known := v.t.sums[p]; known {
		return nil
	}
	e, err := v.stat(ctx, p)
	if err != nil {
		return err
	}
	if err := fn(p, e); err != nil || e.Kind != Dir {
		return err
	}
	names, err := v.list(ctx, p)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := v.walk(ctx, path.Join(p, name), fn); err != nil {
			return err
		}
	}
	return nil
}

// filtered digests the entries that the patterns leave, and the directories they are in.
func (v *view) filtered(ctx context.Context, at string, opt Opt) (Sum, error) {
	include, err := patternmatcher.New(opt.Include)
	if err != nil {
		return Sum{}, fmt.Errorf("include patterns: %w", err)
	}
	exclude, err := patternmatcher.New(opt.Exclude)
	if err != nil {
		return Sum{}, fmt.Errorf("exclude patterns: %w", err)
	}
	f := filter{v: v, base: at}
	if len(opt.Include) > 0 {
		f.include = include
	}
	if len(opt.Exclude) > 0 {
		f.exclude = exclude
	}
	h := sha256.New()
	_, err = f.walk(ctx, at, patternmatcher.MatchInfo{}, patternmatcher.MatchInfo{}, func(rel string, sum Sum) {
		h.Write(appendString(nil, rel))
		h.Write(sum[:])
	})
	return Sum(h.Sum(nil)), err
}

type filter struct {
	v                *view
	base             string
	include, exclude *patternmatcher.PatternMatcher
}

// walk calls emit for what is kept below and at p, entries before their directory, and tells
// whether there was any.
func (f *filter) walk(ctx context.Context, p string, inc, exc patternmatcher.MatchInfo, emit func(string, Sum)) (some bool, err error) {
	e, err := f.v.stat(ctx, p)
	if err != nil {
		return false, err
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, f.base), "/")
	kept := true
	if rel != "" {
		if f.include != nil {
			if kept, inc, err = f.include.MatchesUsingParentResults(rel, inc); err != nil {
				return false, err
			}
		}
		if f.exclude != nil {
			var out bool
			if out, exc, err = f.exclude.MatchesUsingParentResults(rel, exc); err != nil {
				return false, err
			}
			kept = kept && !out
		}
	} else {
		kept = f.include == nil
	}
	if e.Kind == Dir {
		names, err := f.v.list(ctx, p)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			below, err := f.walk(ctx, path.Join(p, name), inc, exc, emit)
			if err != nil {
				return false, err
			}
			kept = kept || below
		}
	}
	if kept {
		emit(rel, e.own())
	}
	return kept, nil
}

// glob returns the paths that match a pattern, sorted. Links that the pattern names are followed,
// those that a wildcard matches are not.
func (v *view) glob(ctx context.Context, pattern string) ([]string, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	found := []string{""}
	follow := true
	for _, elem := range strings.Split(clean(pattern), "/") {
		if elem == "" {
			continue
		}
		var next []string
		for _, p := range found {
			more, err := v.match(ctx, p, elem, follow)
			if err != nil {
				return nil, err
			}
			next = append(next, more...)
		}
		found = next
		follow = follow && !strings.ContainsAny(elem, `*?[`)
	}
	slices.Sort(found)
	return found, nil
}

// match returns the entries of a directory whose name matches elem; none if dir is a link that is
// not to be followed.
func (v *view) match(ctx context.Context, dir, elem string, follow bool) ([]string, error) {
	at, err := v.resolve(ctx, dir, follow)
	var nf *NotFoundError
	if errors.As(err, &nf) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := v.stat(ctx, at)
	if err != nil || e.Kind != Dir {
		return nil, missingIsNil(err)
	}
	names, err := v.list(ctx, at)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		// The pattern was checked before.
		if ok, _ := path.Match(elem, name); ok {
			out = append(out, path.Join(dir, name))
		}
	}
	return out, nil
}

func missingIsNil(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// require makes sure that every pattern matches something.
func (v *view) require(ctx context.Context, patterns []string) error {
	for _, p := range patterns {
		matches, err := v.glob(ctx, path.Join("/", p))
		if err != nil {
			return err
		}
		if len(matches) == 0 {
			return &NotFoundError{Path: path.Join("/", p)}
		}
	}
	return nil
}

func dirStat(mode uint32) *fstypes.Stat { return &fstypes.Stat{Mode: mode} }
