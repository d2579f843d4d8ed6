//go:build linux

// Package snapshottest is the conformance suite that every snapshotter passes.
package snapshottest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// Run runs the suite on the named snapshotter.
func Run(t *testing.T, name string) {
	for title, test := range map[string]func(*testing.T, *env){
		"a tree shows what its layers wrote":                     layers,
		"removed and replaced folders are hidden":                removals,
		"a tree can be shown while it is active":                 activeTree,
		"the layer of a snapshot applied to its parent gives it": roundTrip,
		"the same change has the same bytes":                     deterministic,
		"what did not change is in no layer":                     unchanged,
		"a parent is kept as long as something stands on it":     parents,
		"a snapshot that does not exist is named":                missing,
		"everything is there after opening again":                reopen,
		"what a crash left behind is removed":                    crash,
		"commit and prepare in one do the same as one by one":    commitPrepare,
		"many write at once and some of it is refused":           together,
		"a view for writing does not touch what it was made of":  isolation,
		"mounts left by another process are ended when opened":   leftMounts,
		"usage counts the files of a snapshot":                   usage,
		"a chain may be of any length":                           longChain,
		"layers are joined to a tree":                            join,
		"the difference of two trees is a tree":                  difference,
		"trees that are joined behave like copies":               joinedAsCopied,
	} {
		t.Run(title, func(t *testing.T) {
			test(t, open(t, tmpfs(t), name))
		})
	}
}

type env struct {
	*snapshot.Store
	t    *testing.T
	ctx  context.Context
	root string
	name string
}

// tmpfs returns a file system in memory: the suite is not about disks.
func tmpfs(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""), "snapshots are mounted, which needs root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func open(t *testing.T, root, name string) *env {
	s, err := snapshot.Open(t.Context(), root, name)
	require.NoError(t, err)
	require.Equal(t, name, s.Name())
	e := &env{Store: s, t: t, ctx: context.WithoutCancel(t.Context()), root: root, name: name}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// step makes the snapshot key on parent by running change in its tree.
func (e *env) step(key, parent string, change func(dir string)) {
	e.t.Helper()
	require.NoError(e.t, e.Prepare(e.ctx, key+".active", parent))
	e.write(key+".active", change)
	require.NoError(e.t, e.Commit(e.ctx, key, key+".active"))
}

func (e *env) write(active string, change func(dir string)) {
	e.t.Helper()
	dir, release, err := snapshot.MountTemp(e.Mountable(e.ctx, active, false, nil))
	require.NoError(e.t, err)
	change(dir)
	require.NoError(e.t, release())
}

// tree returns the archive of all that is in a snapshot, as a value to compare.
func (e *env) tree(key string) string {
	e.t.Helper()
	dir, release, err := snapshot.MountTemp(e.Mountable(e.ctx, key, true, nil))
	require.NoError(e.t, err)
	var buf bytes.Buffer
	require.NoError(e.t, layer.WriteChanges(e.ctx, &buf, layer.Stack{}, layer.Tree(dir), nil))
	require.NoError(e.t, release())
	return buf.String()
}

func (e *env) names(key string) []string {
	e.t.Helper()
	dir, release, err := snapshot.MountTemp(e.Mountable(e.ctx, key, true, nil))
	require.NoError(e.t, err)
	var names []string
	require.NoError(e.t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, p); rel != "." {
			names = append(names, rel)
		}
		return err
	}))
	require.NoError(e.t, release())
	return names
}

func (e *env) file(dir, name, content string) {
	e.t.Helper()
	require.NoError(e.t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
	require.NoError(e.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
}

func layers(t *testing.T, e *env) {
	e.step("a", "", func(dir string) { e.file(dir, "one", "1"); e.file(dir, "d/x", "x") })
	e.step("b", "a", func(dir string) { e.file(dir, "one", "2"); e.file(dir, "d/y", "y") })
	require.Equal(t, []string{"d", "d/x", "one"}, e.names("a"))
	require.Equal(t, []string{"d", "d/x", "d/y", "one"}, e.names("b"))
	dir, release, err := snapshot.MountTemp(e.Mountable(e.ctx, "b", true, nil))
	require.NoError(t, err)
	got, err := os.ReadFile(filepath.Join(dir, "one"))
	require.NoError(t, err)
	require.Equal(t, "2", string(got))
	require.NoError(t, release())
	require.NoError(t, release(), "release may be called again")
}

// history is a set of layers with everything that is hard about them.
func (e *env) history() {
	t := e.t
	e.step("h1", "", func(dir string) {
		e.file(dir, "keep/a", "a")
		e.file(dir, "keep/sub/b", "b")
		e.file(dir, "opaque/old", "o")
		e.file(dir, "opaque/both/old", "o")
		e.file(dir, "gone", "g")
		e.file(dir, "dir-to-file/x", "x")
		e.file(dir, "file-to-dir", "f")
		require.NoError(t, os.Symlink("keep", filepath.Join(dir, "link")))
		require.NoError(t, os.Link(filepath.Join(dir, "keep/a"), filepath.Join(dir, "hard")))
	})
	e.step("h2", "h1", func(dir string) {
		require.NoError(t, os.Remove(filepath.Join(dir, "gone")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "opaque")))
		e.file(dir, "opaque/new", "n")
		e.file(dir, "opaque/both/new", "n")
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "dir-to-file")))
		e.file(dir, "dir-to-file", "f")
		require.NoError(t, os.Remove(filepath.Join(dir, "file-to-dir")))
		e.file(dir, "file-to-dir/x", "x")
		require.NoError(t, os.Remove(filepath.Join(dir, "link")))
		require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "link")))
		require.NoError(t, os.Chmod(filepath.Join(dir, "keep/sub"), 0o2711))
	})
	e.step("h3", "h2", func(dir string) {
		require.NoError(t, os.Link(filepath.Join(dir, "keep/a"), filepath.Join(dir, "hard2")))
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "file-to-dir")))
		require.NoError(t, os.Rename(filepath.Join(dir, "opaque/new"), filepath.Join(dir, "moved")))
	})
}

func removals(t *testing.T, e *env) {
	e.history()
	require.Equal(t, []string{
		"dir-to-file", "file-to-dir", "file-to-dir/x", "hard", "keep", "keep/a", "keep/sub",
		"keep/sub/b", "link", "opaque", "opaque/both", "opaque/both/new", "opaque/new",
	}, e.names("h2"))
	require.Equal(t, []string{
		"dir-to-file", "hard", "hard2", "keep", "keep/a", "keep/sub",
		"keep/sub/b", "link", "moved", "opaque", "opaque/both", "opaque/both/new",
	}, e.names("h3"))
}

func activeTree(t *testing.T, e *env) {
	e.step("a", "", func(dir string) { e.file(dir, "one", "1") })
	require.NoError(t, e.Prepare(e.ctx, "b", "a"))
	e.write("b", func(dir string) { e.file(dir, "two", "2") })
	require.Equal(t, []string{"one", "two"}, e.names("b"))
}

func roundTrip(t *testing.T, e *env) {
	e.history()
	parent := ""
	for _, key := range []string{"h1", "h2", "h3"} {
		var diff bytes.Buffer
		require.NoError(t, e.Diff(e.ctx, snapshot.Layer{Snapshot: key}, &diff))
		copied := "copy-" + key
		e.step(copied, parent, func(dir string) {
			_, err := layer.Apply(e.ctx, dir, &diff)
			require.NoError(t, err)
		})
		require.Equal(t, e.names(key), e.names(copied))
		parent = copied
	}
}

func unchanged(t *testing.T, e *env) {
	e.history()
	e.step("same", "h3", func(string) {})
	var diff bytes.Buffer
	require.NoError(t, e.Diff(e.ctx, snapshot.Layer{Snapshot: "same"}, &diff))
	_, err := tar.NewReader(&diff).Next()
	require.ErrorIs(t, err, io.EOF)
}

func deterministic(t *testing.T, e *env) {
	e.history()
	for _, key := range []string{"h1", "h2", "h3"} {
		var a, b bytes.Buffer
		require.NoError(t, e.Diff(e.ctx, snapshot.Layer{Snapshot: key}, &a))
		require.NoError(t, e.Diff(e.ctx, snapshot.Layer{Snapshot: key}, &b))
		require.Equal(t, a.Bytes(), b.Bytes())
	}
}

func parents(t *testing.T, e *env) {
	e.step("a", "", func(string) {})
	e.step("b", "a", func(string) {})
	if e.name == snapshot.Overlay {
		require.True(t, errdefs.IsFailedPrecondition(e.Remove(e.ctx, "a")))
	}
	require.NoError(t, e.Remove(e.ctx, "b"))
	require.NoError(t, e.Remove(e.ctx, "a"))
	require.NoError(t, e.Cleanup(e.ctx))
	e.nothingLeft()
}

func (e *env) nothingLeft() {
	e.t.Helper()
	committed, active := e.Parents()
	require.Empty(e.t, committed)
	require.Empty(e.t, active)
	left, err := filepath.Glob(filepath.Join(e.root, e.name, "snapshots", "*"))
	require.NoError(e.t, err)
	require.Empty(e.t, left)
}

func missing(t *testing.T, e *env) {
	_, err := e.Tree(e.ctx, "nobody")
	require.True(t, errdefs.IsNotFound(err), "%v", err)
	require.ErrorContains(t, err, "nobody")
	require.True(t, errdefs.IsNotFound(e.Prepare(e.ctx, "x", "nobody")))
	require.True(t, errdefs.IsNotFound(e.Remove(e.ctx, "nobody")))
	_, err = e.CommitPrepare(e.ctx, "a", "nobody", "b")
	require.True(t, errdefs.IsNotFound(err))
}

func reopen(t *testing.T, e *env) {
	e.history()
	require.NoError(t, e.Prepare(e.ctx, "active", "h3"))
	before := e.tree("h3")
	require.NoError(t, e.Close())
	e = open(t, e.root, e.name)
	require.Equal(t, before, e.tree("h3"))
	committed, active := e.Parents()
	require.Equal(t, map[string]string{"h1": "", "h2": "h1", "h3": "h2"}, committed)
	require.Equal(t, map[string]string{"active": "h3"}, active)
	e.write("active", func(dir string) { e.file(dir, "new", "n") })
	require.NoError(t, e.Commit(e.ctx, "h4", "active"))
	require.Contains(t, e.names("h4"), "new")
}

func crash(t *testing.T, e *env) {
	e.step("a", "", func(dir string) { e.file(dir, "f", "f") })
	require.NoError(t, e.Close())
	dir := filepath.Join(e.root, e.name, "snapshots")
	for i := 2; i < 4; i++ {
		// A crash after the folder was made and before the transaction was committed.
		e.file(dir, fmt.Sprintf("%d/fs/x", i), "x")
	}
	e.file(dir, "new-123/fs/x", "x")
	e.file(dir, "rm-1/fs/x", "x")
	e = open(t, e.root, e.name)
	e.step("b", "a", func(dir string) { e.file(dir, "g", "g") })
	require.NoError(t, e.Cleanup(e.ctx))
	require.Equal(t, []string{"f", "g"}, e.names("b"))
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, left, 2)
}

func commitPrepare(t *testing.T, e *env) {
	require.NoError(t, e.Prepare(e.ctx, "a.active", ""))
	e.write("a.active", func(dir string) { e.file(dir, "f", "f") })
	committed, err := e.CommitPrepare(e.ctx, "a", "a.active", "b.active")
	require.NoError(t, err)
	require.True(t, committed)
	e.write("b.active", func(dir string) { e.file(dir, "g", "g") })
	require.NoError(t, e.Commit(e.ctx, "b", "b.active"))
	require.Equal(t, []string{"f"}, e.names("a"))
	require.Equal(t, []string{"f", "g"}, e.names("b"))
	committed, err = e.CommitPrepare(e.ctx, "a", "b", "c")
	require.Error(t, err, "a name is taken")
	require.False(t, committed)
	require.Equal(t, []string{"f", "g"}, e.names("b"))
}

func isolation(t *testing.T, e *env) {
	e.step("a", "", func(dir string) { e.file(dir, "f", "old") })
	before := e.tree("a")
	require.NoError(t, e.Prepare(e.ctx, "w", "a"))
	e.write("w", func(dir string) { e.file(dir, "f", "new"); e.file(dir, "g", "g") })
	require.Equal(t, before, e.tree("a"))
	require.NoError(t, e.Remove(e.ctx, "w"))
	require.Equal(t, before, e.tree("a"))
}

func leftMounts(t *testing.T, e *env) {
	e.history()
	require.NoError(t, e.Prepare(e.ctx, "w", "h3"))
	dir, _, err := snapshot.MountTemp(e.Mountable(e.ctx, "w", false, nil))
	require.NoError(t, err)
	require.NoError(t, e.Close())
	e = open(t, e.root, e.name)
	if e.name == snapshot.Overlay {
		require.NoDirExists(t, dir)
	}
	require.Contains(t, e.names("h3"), "moved")
}

func usage(t *testing.T, e *env) {
	e.step("a", "", func(dir string) { e.file(dir, "f", "four") })
	u, err := e.Usage(e.ctx, "a")
	require.NoError(t, err)
	require.Positive(t, u.Size)
	require.NoError(t, e.Prepare(e.ctx, "b", "a"))
	before, err := e.Usage(e.ctx, "b")
	require.NoError(t, err)
	e.write("b", func(dir string) { e.file(dir, "g", string(make([]byte, 1<<20))) })
	after, err := e.Usage(e.ctx, "b")
	require.NoError(t, err)
	require.GreaterOrEqual(t, after.Size-before.Size, int64(1<<20))
}

func together(t *testing.T, e *env) {
	const writers, length = 32, 8
	name := func(w, i int) string { return fmt.Sprintf("w%d-%d", w, i) }
	writer := func(w int) error {
		if err := e.Prepare(e.ctx, name(w, 0)+".active", ""); err != nil {
			return err
		}
		for i := range length {
			active := name(w, i) + ".active"
			if err := e.Prepare(e.ctx, active, ""); !errors.Is(err, errdefs.ErrAlreadyExists) {
				return fmt.Errorf("%s twice: %w", active, err)
			}
			e.write(active, func(dir string) { e.file(dir, name(w, i), "") })
			if _, err := e.CommitPrepare(e.ctx, name(w, i), active, name(w, i+1)+".active"); err != nil {
				return err
			}
			if _, err := e.CommitPrepare(e.ctx, "again", active, "nothing"); !errors.Is(err, errdefs.ErrNotFound) {
				return fmt.Errorf("%s after it was committed: %w", active, err)
			}
		}
		return e.Remove(e.ctx, name(w, length)+".active")
	}
	var all errgroup.Group
	for w := range writers {
		all.Go(func() error { return writer(w) })
	}
	require.NoError(t, all.Wait())
	check := func(e *env) {
		for w := range writers {
			var want []string
			for i := range length {
				want = append(want, name(w, i))
			}
			require.Equal(t, want, e.names(name(w, length-1)))
		}
	}
	check(e)
	require.NoError(t, e.Close())
	e = open(t, e.root, e.name)
	check(e)
}

func longChain(t *testing.T, e *env) {
	length := 600
	if e.name == snapshot.Native {
		length = 40 // every one is a whole copy
	}
	key := func(i int) string { return fmt.Sprintf("k%d", i) }
	require.NoError(t, e.Prepare(e.ctx, key(0)+".active", ""))
	for i := range length {
		e.write(key(i)+".active", func(dir string) {
			e.file(dir, fmt.Sprintf("d%d/f%d", i%7, i), fmt.Sprint(i))
			if i%10 == 9 { // things made just before, and long ago, go
				require.NoError(t, os.Remove(filepath.Join(dir, fmt.Sprintf("d%d/f%d", (i-1)%7, i-1))))
			}
			if i%100 == 99 {
				require.NoError(t, os.RemoveAll(filepath.Join(dir, "d3")))
				e.file(dir, fmt.Sprintf("d3/again%d", i), "")
			}
		})
		_, err := e.CommitPrepare(e.ctx, key(i), key(i)+".active", key(i+1)+".active")
		require.NoError(t, err)
	}
	want := map[string]bool{}
	for i := range length {
		want[fmt.Sprintf("d%d/f%d", i%7, i)] = true
		if i%10 == 9 {
			delete(want, fmt.Sprintf("d%d/f%d", (i-1)%7, i-1))
		}
		if i%100 == 99 {
			for n := range want {
				if filepath.Dir(n) == "d3" {
					delete(want, n)
				}
			}
			want[fmt.Sprintf("d3/again%d", i)] = true
		}
	}
	check := func(e *env) {
		got := map[string]bool{}
		for _, n := range e.names(key(length - 1)) {
			if filepath.Dir(n) != "." {
				got[n] = true
			}
		}
		require.Equal(t, want, got)
	}
	check(e)
	require.NoError(t, e.Close())
	e = open(t, e.root, e.name)
	check(e)
	keys := []string{key(length) + ".active"}
	for i := length - 1; i >= 0; i-- {
		keys = append(keys, key(i))
	}
	require.NoError(t, e.Remove(e.ctx, keys...))
	require.NoError(t, e.Cleanup(e.ctx))
	e.nothingLeft()
}
