//go:build linux

package snapshottest

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/continuity/sysx"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

func named(names ...string) (all []snapshot.Layer) {
	for _, n := range names {
		all = append(all, snapshot.Layer{Snapshot: n})
	}
	return all
}

// join makes the committed snapshot key.
func (e *env) join(key, base string, layers ...snapshot.Layer) {
	e.t.Helper()
	require.NoError(e.t, e.Join(e.ctx, key+".active", base, layers))
	require.NoError(e.t, e.Commit(e.ctx, key, key+".active"))
}

// compare makes the committed snapshot key of what upper has more than lower.
func (e *env) compare(key, lower, upper string) snapshot.Layer {
	e.t.Helper()
	removed, err := e.Compare(e.ctx, key+".active", lower, upper)
	require.NoError(e.t, err)
	require.NoError(e.t, e.Commit(e.ctx, key, key+".active"))
	return snapshot.Layer{Snapshot: key, Removed: removed}
}

func join(t *testing.T, e *env) {
	e.history()
	e.step("other", "", func(dir string) {
		e.file(dir, "moved", "other")
		e.file(dir, "keep/c", "c")
		e.file(dir, "dir-to-file/z", "z")
		require.NoError(t, os.Chmod(filepath.Join(dir, "keep"), 0o711))
	})
	e.join("on", "h3", named("other")...)
	require.Contains(t, e.names("on"), "keep/sub/b")
	require.Contains(t, e.names("on"), "keep/c")
	require.Contains(t, e.names("on"), "dir-to-file/z", "a folder takes the place of a file")
	e.join("chain", "other", named("h1", "h2", "h3")...)
	require.Equal(t, append(e.names("h3"), "keep/c"), moveToEnd(e.names("chain"), "keep/c"))

	u, err := e.Usage(e.ctx, "on")
	require.NoError(t, err)
	before, err := e.Usage(e.ctx, "h1")
	require.NoError(t, err)
	require.Less(t, u.Size, before.Size+1<<20)
	err = e.Join(e.ctx, "x.active", "h1", named("nowhere"))
	require.True(t, errdefs.IsNotFound(err), "%v", err)
	var at *snapshot.LayerError
	require.ErrorAs(t, err, &at)
	require.Equal(t, "nowhere", at.Snapshot)
	_, active := e.Parents()
	require.Empty(t, active, "what failed is removed")
}

// moveToEnd returns names with one of them at the end.
func moveToEnd(names []string, name string) []string {
	return append(slices.DeleteFunc(names, func(n string) bool { return n == name }), name)
}

func difference(t *testing.T, e *env) {
	e.history()
	d := e.compare("d", "h1", "h3")
	require.NotEmpty(t, d.Removed)
	require.NotContains(t, e.names("d"), "gone")
	e.join("again", "h1", d)
	require.Equal(t, e.tree("h3"), e.tree("again"))
	nothing := e.compare("nothing", "h3", "h3")
	require.Empty(t, nothing.Removed)
	require.Empty(t, e.names("nothing"))
	all := e.compare("all", "", "h3")
	require.Empty(t, all.Removed)
	require.Equal(t, e.tree("h3"), e.tree("all"))
	none := e.compare("none", "h3", "")
	require.Empty(t, e.names("none"))
	e.join("emptied", "h3", none)
	require.Empty(t, e.names("emptied"))
	// The layer as an archive makes the same of a tree as joining it does.
	var diff bytes.Buffer
	require.NoError(t, e.Diff(e.ctx, d, &diff))
	e.step("unpacked", "h1", func(dir string) {
		_, err := layer.Apply(e.ctx, dir, &diff)
		require.NoError(t, err)
	})
	require.Equal(t, e.tree("h3"), e.tree("unpacked"))
}

// chains draws snapshots at random.
type chains struct {
	*env
	rnd *rand.Rand
	n   int
	// layersOf has the layers of each snapshot, lowest first.
	layersOf map[string][]snapshot.Layer
	// changes has what each layer changes, as a difference of two trees.
	changes map[string]change
	all     []string
}

// change is a layer in the plainest form: what a tree was, by path, and what it is then.
type change struct{ was, is map[string]string }

// plainly makes a change to a tree.
func (c change) plainly(tree map[string]string) {
	// Folders on the way to a change look as they do in the tree that it comes from.
	for p := range c.was {
		if _, ok := c.is[p]; ok {
			continue
		}
		removeFrom(tree, p)
		c.ancestors(tree, p)
	}
	for p, now := range c.is {
		if c.was[p] == now {
			continue
		}
		if !isFolder(now) {
			removeFrom(tree, p)
		}
		tree[p] = now
		c.ancestors(tree, p)
	}
}

func (c change) ancestors(tree map[string]string, p string) {
	for p = filepath.Dir(p); p != "."; p = filepath.Dir(p) {
		if now, ok := c.is[p]; ok && isFolder(now) {
			tree[p] = now
		}
	}
}

func isFolder(line string) bool { return strings.HasPrefix(line, "d") }

func removeFrom(tree map[string]string, p string) {
	for q := range tree {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(tree, q)
		}
	}
}

// paths returns what is in a tree by path, without what is linked to what.
func paths(lines []string) map[string]string {
	tree := map[string]string{}
	for _, l := range lines {
		p, rest, _ := strings.Cut(l, " ")
		if i := strings.Index(rest, " is "); i >= 0 {
			_, end, _ := strings.Cut(rest[i+len(" is "):], " ")
			rest = rest[:i] + " " + end
		}
		tree[p] = rest
	}
	return tree
}

// sameAsPlain compares a tree with what the changes of its layers make of an empty one.
func (c *chains) sameAsPlain(key string) {
	tree := map[string]string{}
	for _, l := range c.layersOf[key] {
		c.changes[l.Snapshot].plainly(tree)
	}
	require.Equal(c.t, tree, paths(c.look(key)), "%s: %v", key, c.layersOf[key])
}

// joinedAsCopied compares trees that are joined with those that plain copies of files make.
func joinedAsCopied(t *testing.T, e *env) {
	for seed := range uint64(8) {
		c := &chains{env: e, rnd: rand.New(rand.NewPCG(seed, 3)), layersOf: map[string][]snapshot.Layer{}, changes: map[string]change{}}
		for range 14 {
			c.draw(fmt.Sprint(seed))
		}
	}
}

func (c *chains) pick() string { return c.all[c.rnd.IntN(len(c.all))] }

func (c *chains) draw(seed string) {
	c.n++
	key := fmt.Sprint("s", seed, "-", c.n)
	what := c.rnd.IntN(10)
	switch {
	case len(c.all) < 2 || what < 5:
		parent := ""
		if len(c.all) > 0 && c.rnd.IntN(4) > 0 {
			parent = c.pick()
		}
		c.step(key, parent, func(dir string) {
			for range 1 + c.rnd.IntN(8) {
				c.change(dir)
			}
		})
		c.layersOf[key] = append(append([]snapshot.Layer{}, c.layersOf[parent]...), snapshot.Layer{Snapshot: key})
		c.changes[key] = change{is: paths(c.look(key))}
		if parent != "" {
			c.changes[key] = change{was: paths(c.look(parent)), is: paths(c.look(key))}
		}
	case what < 8:
		base := c.pick()
		layers := append([]snapshot.Layer{}, c.layersOf[c.pick()]...)
		if c.rnd.IntN(2) == 0 {
			layers = append(layers, c.layersOf[c.pick()]...)
		}
		c.join(key, base, layers...)
		c.layersOf[key] = append(append([]snapshot.Layer{}, c.layersOf[base]...), layers...)
		c.sameAsUnpacked(key)
		c.sameAsPlain(key)
	default:
		lower, upper := c.pick(), c.pick()
		c.layersOf[key] = []snapshot.Layer{c.compare(key, lower, upper)}
		c.changes[key] = change{was: paths(c.look(lower)), is: paths(c.look(upper))}
		c.join(key+"-again", lower, c.layersOf[key]...)
		require.Equal(c.t, c.look(upper), c.look(key+"-again"), "%s with the difference to %s", lower, upper)
	}
	c.all = append(c.all, key)
}

// sameAsUnpacked compares a tree with what the archives of its layers unpack to.
func (c *chains) sameAsUnpacked(key string) {
	dir := c.t.TempDir()
	for _, l := range c.layersOf[key] {
		var diff bytes.Buffer
		require.NoError(c.t, c.Diff(c.ctx, l, &diff))
		_, err := layer.Apply(c.ctx, dir, &diff)
		require.NoError(c.t, err, "%s: %v", key, c.layersOf[key])
	}
	require.Equal(c.t, strings.Join(lookInto(c.t, dir), "\n"), strings.Join(c.look(key), "\n"), "%s: %v", key, c.layersOf[key])
}

// look describes all that is in a snapshot.
func (c *chains) look(key string) []string {
	dir, release, err := snapshot.MountTemp(c.Mountable(c.ctx, key, true, nil))
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, release()) }()
	return lookInto(c.t, dir)
}

// lookInto describes all that is in a folder. Hard links are told by the first of their names.
func lookInto(t *testing.T, dir string) (all []string) {
	first := map[uint64]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		sys := st.Sys().(*syscall.Stat_t)
		line := fmt.Sprint(rel, " ", st.Mode(), " ", sys.Uid, ":", sys.Gid, " ", sys.Rdev, " ", st.ModTime().Unix())
		attr, _ := sysx.LGetxattr(p, "user.x")
		line += fmt.Sprintf(" %q", attr)
		if !st.IsDir() {
			if first[sys.Ino] == "" {
				first[sys.Ino] = rel
			}
			line += " is " + first[sys.Ino]
		}
		if st.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			line += fmt.Sprintf(" %q", data)
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			to, _ := os.Readlink(p)
			line += " -> " + to
		}
		all = append(all, line)
		return nil
	}))
	return all
}

var someNames = []string{"a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/a/a", "a/a/b", "b/a/c", "a/a/a/a"}

// change does something to a tree.
func (c *chains) change(dir string) {
	name := someNames[c.rnd.IntN(len(someNames))]
	p, q := filepath.Join(dir, name), filepath.Join(dir, someNames[c.rnd.IntN(len(someNames))])
	c.n++
	t := time.Unix(1_000_000+int64(c.n), 0)
	parent, err := os.Lstat(filepath.Dir(p))
	if err != nil || !parent.IsDir() {
		_ = os.RemoveAll(filepath.Dir(p))
		if os.MkdirAll(filepath.Dir(p), 0o755) != nil {
			return
		}
	}
	st, err := os.Lstat(p)
	switch c.rnd.IntN(12) {
	case 0, 1, 2:
		if err == nil && (st.IsDir() || c.rnd.IntN(2) == 0) {
			_ = os.RemoveAll(p)
		}
		_ = os.WriteFile(p, fmt.Append(nil, c.n), 0o600|fs.FileMode(c.rnd.IntN(0o100)))
	case 3, 4:
		if err == nil && !st.IsDir() {
			_ = os.Remove(p)
		}
		_ = os.Mkdir(p, 0o700|fs.FileMode(c.rnd.IntN(0o100)))
	case 5, 6:
		_ = os.RemoveAll(p)
	case 7:
		_ = os.RemoveAll(p)
		_ = os.Mkdir(p, 0o755)
		_ = os.WriteFile(filepath.Join(p, "new"), fmt.Append(nil, c.n), 0o600)
	case 8:
		_ = os.RemoveAll(p)
		_ = os.Symlink(someNames[c.rnd.IntN(len(someNames))], p)
	case 9:
		if p != q {
			if f, err := os.Lstat(q); err == nil && !f.IsDir() {
				_ = os.RemoveAll(p)
				_ = os.Link(q, p)
			}
		}
	case 10:
		if err == nil && !strings.HasPrefix(p, q) && !strings.HasPrefix(q, p) {
			if to, err := os.Lstat(filepath.Dir(q)); err == nil && to.IsDir() {
				_ = os.RemoveAll(q)
				_ = c.move(p, q)
			}
		}
	case 11:
		if err == nil && st.Mode()&fs.ModeSymlink == 0 {
			_ = os.Chmod(p, 0o700|fs.FileMode(c.rnd.IntN(0o100)))
			_ = os.Chown(p, c.rnd.IntN(3), c.rnd.IntN(3))
			_ = sysx.LSetxattr(p, "user.x", fmt.Append(nil, c.rnd.IntN(3)), 0)
		}
	}
	for _, at := range []string{p, q, filepath.Dir(p), filepath.Dir(q)} {
		if at == dir {
			continue
		}
		ts := unix.NsecToTimespec(t.UnixNano())
		_ = unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}
}

// move renames, as mv does it where overlayfs refuses to.
func (c *chains) move(p, q string) error {
	err := os.Rename(p, q)
	if err == nil {
		return nil
	}
	return os.RemoveAll(p)
}
