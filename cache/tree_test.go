package cache_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
)

func TestTreesAreBuiltOnEachOther(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "one", "1")
		b := e.step(a, "two", "2", "one", "changed")
		c := e.step(b, "three", "3")
		require.Equal(t, map[string]string{"one": "1"}, e.files(a, cache.Access{}))
		require.Equal(t, map[string]string{"one": "changed", "two": "2", "three": "3"}, e.files(c, cache.Access{}))
		p := c.Parent()
		require.Equal(t, b.ID(), p.ID())
		require.Nil(t, a.Parent())
		ids := []string{a.ID(), b.ID(), c.ID()}
		e.release(a, b, c, p)
		e.reopen()
		for i, id := range ids {
			ref, err := e.Get(e.ctx, id)
			require.NoError(t, err)
			require.Len(t, e.files(ref, cache.Access{}), i+1)
			e.release(ref)
		}
	})
}

func TestATreeThatIsNotCommittedGoesWithItsHandle(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil)
		m := e.newTree(a, cache.NewOpt{}, "x", "x")
		id := m.ID()
		require.NoError(t, m.Release(e.ctx))
		require.NoError(t, m.Release(e.ctx), "Release may be called again")
		_, err := e.GetMutable(e.ctx, id)
		require.ErrorIs(t, err, cache.ErrNotFound)
		require.Len(t, e.usage(), 1)
		e.release(a)
	})
}

func TestARetainedTreeGoesOn(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		m := e.newTree(nil, cache.NewOpt{Retain: true}, "x", "1")
		id := m.ID()
		require.NoError(t, m.SetValue("name", []byte("v"), "index"))
		_, err := e.GetMutable(e.ctx, id)
		require.ErrorIs(t, err, cache.ErrLocked)
		require.NoError(t, m.Release(e.ctx))
		e.reopen()
		require.Equal(t, []string{id}, e.Search("name", "index"))
		m, err = e.GetMutable(e.ctx, id)
		require.NoError(t, err)
		e.write(m, "y", "2")
		ref, err := m.Commit(e.ctx)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"x": "1", "y": "2"}, e.files(ref, cache.Access{}))
		require.Len(t, e.usage(), 1, "the two records of one tree are shown once")
		require.True(t, e.usage()[0].Mutable)

		_, err = e.GetMutable(e.ctx, id)
		require.ErrorIs(t, err, cache.ErrLocked, "the immutable one is in use")
		first := ref.ID()
		e.release(ref)
		ref, err = e.Get(e.ctx, first)
		require.NoError(t, err)
		e.release(ref)
		m, err = e.GetMutable(e.ctx, id)
		require.NoError(t, err)
		_, err = e.Get(e.ctx, first)
		require.ErrorIs(t, err, cache.ErrNotFound, "it is being written to again")
		ref, err = m.Commit(e.ctx)
		require.NoError(t, err)

		child := e.step(ref, "z", "3")
		_, err = e.GetMutable(e.ctx, id)
		require.ErrorIs(t, err, cache.ErrNotFound, "built upon, it is what was committed for good")
		require.Empty(t, e.Search("name", "index"))
		require.Len(t, e.files(child, cache.Access{}), 3)
		e.release(ref, child)
	})
}

func TestADiscardedTreeIsNotRetained(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		m := e.newTree(nil, cache.NewOpt{Retain: true}, "x", "1")
		require.NoError(t, m.Discard(e.ctx))
		require.Empty(t, e.usage())
	})
}

func TestAViewForWritingChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "one", "1")
		mnt, err := a.Mount(e.ctx, false, cache.Access{})
		require.NoError(t, err)
		e.mounted(mnt, func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "one"), []byte("other"), 0o644))
			e.release(a) // what is mounted stays
		})
		a, err = e.Get(e.ctx, a.ID())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"one": "1"}, e.files(a, cache.Access{}))
		e.release(a)
	})
}

func TestValuesAndDescriptionsAreKept(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil)
		require.Nil(t, a.Value("k"))
		require.NoError(t, a.SetValue("k", []byte("1"), "i"))
		require.NoError(t, a.SetValue("other", []byte("2"), ""))
		require.NoError(t, a.Describe(cache.Description{Text: "RUN it"}))
		require.NoError(t, a.Describe(cache.Description{Type: cache.GitCheckout}))
		require.Error(t, a.SetValue("", nil, ""))
		id := a.ID()
		e.release(a)
		e.reopen()
		require.Equal(t, []string{id}, e.Search("k", "i"))
		require.Empty(t, e.Search("other", ""))
		a, err := e.Get(e.ctx, id)
		require.NoError(t, err)
		require.Equal(t, "1", string(a.Value("k")))
		require.Equal(t, "2", string(a.Value("other")))
		require.Equal(t, "RUN it", a.Description().Text)
		require.Equal(t, cache.GitCheckout, a.Description().Type)
		require.NoError(t, a.SetValue("k", nil, ""))
		require.Nil(t, a.Value("k"))
		require.Empty(t, e.Search("k", "i"))
		b := e.step(nil)
		require.NoError(t, a.SetValue("n", []byte("a"), "i"))
		require.NoError(t, b.SetValue("n", []byte("b"), "i"))
		require.Equal(t, []string{b.ID(), a.ID()}, e.Search("n", "i"), "newest first")
		e.release(a, b)
	})
}

func TestAForeignFolderIsNotTouched(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "cache", "theirs")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := cache.Open(t.Context(), cache.Config{Root: root})
	require.ErrorContains(t, err, "not empty")
	require.FileExists(t, file)
	require.NoFileExists(t, filepath.Join(root, "cache", "version"))
	require.NoError(t, os.WriteFile(filepath.Join(root, "cache", "version"), []byte("99\n"), 0o644))
	_, err = cache.Open(t.Context(), cache.Config{Root: root})
	require.ErrorContains(t, err, `"99"`)
}
