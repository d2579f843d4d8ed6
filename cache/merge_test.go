package cache_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

func (e *env) merge(refs ...*cache.Ref) *cache.Ref {
	e.t.Helper()
	ref, err := e.Merge(e.ctx, refs, cache.Description{Text: "merge"}, event.Scope{})
	require.NoError(e.t, err)
	return ref
}

func (e *env) diff(lower, upper *cache.Ref) *cache.Ref {
	e.t.Helper()
	ref, err := e.Diff(e.ctx, lower, upper, cache.Description{Text: "diff"}, event.Scope{})
	require.NoError(e.t, err)
	return ref
}

// without makes a tree on parent with names removed.
func (e *env) without(parent *cache.Ref, names ...string) *cache.Ref {
	e.t.Helper()
	m := e.newTree(parent, cache.NewOpt{})
	mnt, err := m.Mount(e.ctx, false)
	require.NoError(e.t, err)
	e.mounted(mnt, func(dir string) {
		for _, n := range names {
			require.NoError(e.t, os.RemoveAll(filepath.Join(dir, n)))
		}
	})
	ref, err := m.Commit(e.ctx)
	require.NoError(e.t, err)
	return ref
}

// unpacked returns the files that the layers of a tree give, one unpacked on the other.
func (e *env) unpacked(ref *cache.Ref, acc cache.Access) map[string]string {
	e.t.Helper()
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, acc)
	require.NoError(e.t, err)
	m, err := e.New(e.ctx, nil, cache.Access{}, cache.NewOpt{})
	require.NoError(e.t, err)
	for _, l := range layers {
		require.NoError(e.t, e.FetchBlob(e.ctx, l.Descriptor, acc))
		ra, err := e.Content().ReaderAt(e.ctx, l.Descriptor)
		require.NoError(e.t, err)
		data := make([]byte, ra.Size())
		_, err = ra.ReadAt(data, 0)
		require.NoError(e.t, err)
		require.NoError(e.t, ra.Close())
		d, err := blob.NewDecompressor(bytes.NewReader(data))
		require.NoError(e.t, err)
		mnt, err := m.Mount(e.ctx, false)
		require.NoError(e.t, err)
		e.mounted(mnt, func(dir string) {
			_, err := layer.Apply(e.ctx, dir, d)
			require.NoError(e.t, err)
		})
		require.NoError(e.t, d.Close())
	}
	plain, err := m.Commit(e.ctx)
	require.NoError(e.t, err)
	defer e.release(plain)
	return e.files(plain, cache.Access{})
}

func TestTreesAreLaidOverEachOther(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "one", "1", "d/x", "x")
		b1 := e.step(nil, "two", "2", "d/y", "y", "gone", "g")
		b2 := e.step(b1, "one", "of b")
		c1 := e.step(nil, "d/x", "only to be removed", "gone", "g")
		c2 := e.without(c1, "d/x", "gone")
		m := e.merge(a, nil, b2, c2)
		want := map[string]string{"one": "of b", "two": "2", "d/y": "y"}
		require.Equal(t, want, e.files(m, cache.Access{}))
		require.Equal(t, want, e.unpacked(m, cache.Access{}))
		child := e.step(m, "three", "3", "two", "changed")
		require.Equal(t, "2", e.files(b2, cache.Access{})["two"], "files that trees share are not written to")
		require.Equal(t, "changed", e.files(child, cache.Access{})["two"])
		on := e.merge(child, a)
		require.Equal(t, "1", e.files(on, cache.Access{})["one"])
		require.Equal(t, e.files(on, cache.Access{}), e.unpacked(on, cache.Access{}))
		ids := []string{m.ID(), on.ID()}
		e.release(a, b1, b2, c1, c2, m, child, on)
		e.reopen()
		for _, id := range ids {
			ref, err := e.Get(e.ctx, id)
			require.NoError(t, err)
			require.NotEmpty(t, e.files(ref, cache.Access{}))
			e.release(ref)
		}
		require.NotEmpty(t, e.prune(cache.PruneOpt{All: true}))
		require.Empty(t, e.usage(), "nothing is left")
	})
}

func TestEachLayerKnowsTheTreeThatEndsWithIt(t *testing.T) {
	e := newEnv(t, "overlayfs")
	a := e.step(nil, "a", "a")
	b := e.step(a, "b", "b")
	other := e.step(nil, "c", "c")
	m := e.merge(b, other)
	top := e.step(m, "d", "d")
	require.Equal(t, []string{a.ID(), b.ID()}, b.Chain())
	require.Equal(t, []string{a.ID(), b.ID(), m.ID(), top.ID()}, top.Chain(), "the tree of c alone has nothing below it")
	require.Nil(t, (*cache.Ref)(nil).Chain())
	e.release(a, b, other, m, top)
}

func TestMergesOfLittle(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	a := e.step(nil, "a", "1")
	require.Nil(t, e.merge())
	require.Nil(t, e.merge(nil, nil))
	one := e.merge(nil, a)
	require.Equal(t, a.ID(), one.ID())
	twice := e.merge(a, a)
	require.Equal(t, map[string]string{"a": "1"}, e.files(twice, cache.Access{}))
	require.Nil(t, e.diff(nil, nil))
	require.Nil(t, e.diff(a, a), "nothing has changed")
	whole := e.diff(nil, a)
	require.Equal(t, a.ID(), whole.ID())
	none := e.diff(a, nil)
	require.Empty(t, e.files(none, cache.Access{}))
	emptied := e.merge(a, none)
	require.Empty(t, e.files(emptied, cache.Access{}))
	layers, err := emptied.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, err)
	require.Len(t, layers, 2)
	e.release(a, one, twice, whole, none, emptied)
}

func TestAMergeOfMergesEndsSomewhere(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	refs := []*cache.Ref{e.step(nil, "a", "1")}
	for {
		last := refs[len(refs)-1]
		next, err := e.Merge(e.ctx, []*cache.Ref{last, last}, cache.Description{}, event.Scope{})
		if err != nil {
			var many *cache.MergeError
			require.ErrorAs(t, err, &many)
			break
		}
		refs = append(refs, next)
	}
	require.Len(t, refs, 17)
	require.Equal(t, map[string]string{"a": "1"}, e.files(refs[16], cache.Access{}))
	e.release(refs...)
}

func TestADifferenceIsTheLayersOnTop(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		base := e.image(r, "a", "b")
		full := e.image(r, "a", "b", "c", "d")
		d := e.diff(base, full)
		layers, err := d.Layers(e.ctx, blob.CompressionOpt{}, r.access())
		require.NoError(t, err)
		require.Len(t, layers, 2)
		require.Empty(t, r.opened, "layers that came as blobs stay as they are, and where they are")
		other := e.image(r, "x")
		m := e.merge(other, d)
		require.Equal(t, map[string]string{"x": "content of x", "c": "content of c", "d": "content of d"}, e.files(m, r.access()))
		require.Equal(t, map[string]string{"c": "content of c", "d": "content of d"}, e.files(d, r.access()))
		e.release(base, full, d, other, m)
	})
}

func TestADifferenceOfStrangersIsFoundByComparing(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "same", "s", "gone/deep", "g", "changed", "1", "keep/x", "x")
		b := e.step(nil, "same", "s", "changed", "22", "new", "n", "keep/y", "y")
		d := e.diff(a, b)
		require.NotContains(t, e.files(d, cache.Access{}), "gone/deep")
		other := e.step(nil, "gone/deep", "of another", "gone/beside", "it", "keep/x", "x", "stays", "s")
		m := e.merge(other, d)
		files := e.files(m, cache.Access{})
		require.Equal(t, "22", files["changed"])
		require.Equal(t, "s", files["stays"])
		require.NotContains(t, files, "gone/deep")
		require.NotContains(t, files, "gone/beside", "the whole folder was removed")
		require.NotContains(t, files, "keep/x")
		require.Equal(t, files, e.unpacked(m, cache.Access{}))
		again := e.merge(a, d)
		require.Equal(t, e.files(b, cache.Access{}), e.files(again, cache.Access{}))
		id := d.ID()
		e.release(a, b, d, other, m, again)
		e.reopen()
		d, err := e.Get(e.ctx, id)
		require.NoError(t, err)
		other = e.step(nil, "gone/deep", "g")
		m = e.merge(other, d)
		require.NotContains(t, e.files(m, cache.Access{}), "gone/deep", "what it removes is remembered")
		e.release(d, other, m)
	})
}

func TestAMergeIsTheSameWhenItsPartsAreLazy(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		lazy := e.merge(e.image(r, "a", "b"), e.image(r, "c"), e.image(r, "a", "d"))
		require.Empty(t, r.opened)
		digests := func(ref *cache.Ref) (all []digest.Digest) {
			layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, r.access())
			require.NoError(t, err)
			for _, l := range layers {
				all = append(all, l.Descriptor.Digest)
			}
			return all
		}
		before := digests(lazy)
		require.Empty(t, r.opened, "an export needs no bytes of what is elsewhere")
		files := e.files(lazy, r.access())
		require.Len(t, files, 4)
		require.Equal(t, before, digests(lazy))
		for _, n := range r.opened {
			require.Equal(t, 1, n)
		}
		made := e.merge(e.image(r, "a", "b"), e.image(r, "c"), e.image(r, "a", "d"))
		require.Equal(t, files, e.files(made, r.access()))
		require.Equal(t, before, digests(made))
	})
}

func TestWhatIsSharedIsCountedOnce(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		big := string(bytes.Repeat([]byte("x"), 4<<20))
		a, b := e.step(nil, "a", "1"), e.step(nil, "big", big)
		m := e.merge(a, b)
		require.Len(t, e.files(m, cache.Access{}), 2)
		ids := map[string]cache.Usage{}
		var sum int64
		id := m.ID()
		e.release(a, b, m)
		for _, u := range e.usage() {
			ids[u.ID] = u
			sum += u.Size
		}
		require.Equal(t, []string{a.ID(), b.ID()}, ids[id].Parents)
		require.Less(t, sum, int64(6<<20))
		require.Equal(t, []string{id, a.ID(), b.ID()}, e.prune(cache.PruneOpt{All: true}), "parts stay as long as the merge")
	})
}

func TestALostPartOfAMergeIsLost(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	r := newRemote()
	base := e.image(r, "x")
	part := e.image(r, "a", "b")
	require.Len(t, e.files(part, r.access()), 2)
	m := e.merge(base, part)
	mnt, err := part.Mount(e.ctx, true, r.access())
	require.NoError(t, err)
	mounts, release, err := mnt.Mount()
	require.NoError(t, err)
	dir := lowest(mounts[0].Options)
	require.NoError(t, release())
	require.NoError(t, os.RemoveAll(dir))
	_, err = m.Mount(e.ctx, true, r.access())
	require.ErrorIs(t, err, cache.ErrLost)
	require.ErrorIs(t, part.Lost(), cache.ErrLost)
	require.NoError(t, base.Lost())
	_, err = e.Merge(e.ctx, []*cache.Ref{base, part}, cache.Description{}, event.Scope{})
	require.ErrorIs(t, err, cache.ErrLost, "else nobody would find out which of them has to be made anew")
	e.release(part, m)
	// Who wants it makes it anew: the layer is unpacked once more from its blob.
	part = e.image(r, "a", "b")
	m = e.merge(base, part)
	require.Len(t, e.files(m, r.access()), 3)
	e.release(base, part, m)
}

// lowest returns the lowest folder of a mount of overlayfs.
func lowest(options []string) string {
	for _, o := range options {
		if dirs, ok := bytes.CutPrefix([]byte(o), []byte("lowerdir=")); ok {
			all := bytes.Split(dirs, []byte(":"))
			return string(all[len(all)-1])
		}
	}
	return ""
}

func TestAMergeGivesNobodyWhatTheyMayNotRead(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	owner := newRemote()
	private := e.image(owner, "secret")
	require.Len(t, e.files(private, owner.access()), 1)
	// Another repository names the same layer, and sends other bytes for it.
	thief := newRemote()
	thief.repo = "other"
	for d, b := range owner.blobs {
		thief.blobs[d] = bytes.Repeat([]byte{0}, len(b))
	}
	named := e.image(owner, "secret")
	mine := e.step(nil, "mine", "1")
	m := e.merge(mine, named)
	_, err := m.Mount(e.ctx, true, thief.access())
	require.Error(t, err)
	_, err = m.Layers(e.ctx, blob.CompressionOpt{}, thief.access())
	require.Error(t, err)
	d := e.diff(mine, named)
	_, err = d.Mount(e.ctx, true, thief.access())
	require.Error(t, err)
	require.Len(t, e.files(m, owner.access()), 2)
	_, err = m.Mount(e.ctx, true, thief.access())
	require.Error(t, err, "also when the tree is here already")
	e.release(private, named, mine, m, d)
}

func TestLinksAndSpecialFilesSurviveMerges(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		mut := e.newTree(nil, cache.NewOpt{}, "f", "1")
		mnt, err := mut.Mount(e.ctx, false)
		require.NoError(t, err)
		e.mounted(mnt, func(dir string) {
			require.NoError(t, os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "hard")))
			require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "sym")))
			require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
			require.NoError(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			require.NoError(t, unix.Mknod(filepath.Join(dir, "sock"), unix.S_IFSOCK|0o666, 0))
			require.NoError(t, unix.Setxattr(filepath.Join(dir, "f"), "user.x", []byte("v"), 0))
		})
		special, err := mut.Commit(e.ctx)
		require.NoError(t, err)
		base := e.step(nil, "sym/passwd", "of the tree")
		m := e.merge(base, special, base)
		view, err := m.Mount(e.ctx, false, cache.Access{})
		require.NoError(t, err)
		e.mounted(view, func(dir string) {
			var f, hard, other unix.Stat_t
			require.NoError(t, unix.Stat(filepath.Join(dir, "f"), &f))
			require.NoError(t, unix.Stat(filepath.Join(dir, "hard"), &hard))
			require.Equal(t, f.Ino, hard.Ino)
			require.NoError(t, unix.Lstat(filepath.Join(dir, "sym"), &other))
			require.EqualValues(t, unix.S_IFDIR, other.Mode&unix.S_IFMT, "a folder replaces a link, which is not followed")
			require.NoError(t, unix.Lstat(filepath.Join(dir, "null"), &other))
			require.Equal(t, unix.Mkdev(1, 3), other.Rdev)
			require.NoError(t, unix.Lstat(filepath.Join(dir, "sock"), &other))
			v := make([]byte, 1)
			_, err := unix.Getxattr(filepath.Join(dir, "f"), "user.x", v)
			require.NoError(t, err)
			require.Equal(t, "v", string(v))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("written through"), 0o644))
		})
		require.Equal(t, "1", e.files(special, cache.Access{})["f"])
		require.Equal(t, "1", e.files(m, cache.Access{})["f"])
		e.release(special, base, m)
	})
}
