package cache_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

func TestATreeInUseStaysWhicheverOfItsRecordsIsDropped(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		for _, which := range []string{"mutable", "immutable", "both"} {
			m := e.newTree(nil, cache.NewOpt{Retain: true}, "x", "x")
			ref, err := m.Commit(e.ctx)
			require.NoError(t, err)
			other := ref.Clone()
			if which != "immutable" {
				require.NoError(t, e.Drop(e.ctx, m.ID()))
			}
			if which != "mutable" {
				require.NoError(t, e.Drop(e.ctx, ref.ID()))
			}
			require.Equal(t, map[string]string{"x": "x"}, e.files(ref, cache.Access{}), which)
			e.release(ref)
			child := e.step(other, "y", "y")
			require.Len(t, e.files(child, cache.Access{}), 2, which)
			_, err = child.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
			require.NoError(t, err)
			e.release(other, child)
			require.NoError(t, e.Drop(e.ctx, child.ID(), other.ID()))
			require.Empty(t, e.usage(), which)

			m = e.newTree(nil, cache.NewOpt{Retain: true}, "x", "x")
			ref, err = m.Commit(e.ctx)
			require.NoError(t, err)
			require.NoError(t, e.Drop(e.ctx, m.ID(), ref.ID()))
			e.release(ref)
			require.Empty(t, e.usage(), which)
		}
	})
}

func TestARetainedTreeOnAParentIsSharedByAllWhoMountIt(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		base := e.step(nil, "base", "b")
		m := e.newTree(base, cache.NewOpt{Retain: true})
		first, err := m.Mount(e.ctx, false)
		require.NoError(t, err)
		second, err := m.Mount(e.ctx, true)
		require.NoError(t, err)
		e.mounted(first, func(a string) {
			e.mounted(second, func(b string) {
				require.NoError(t, os.WriteFile(filepath.Join(a, "new"), []byte("n"), 0o644))
				got, err := os.ReadFile(filepath.Join(b, "new"))
				require.NoError(t, err)
				require.Equal(t, "n", string(got))
				require.FileExists(t, filepath.Join(b, "base"))
			})
			require.FileExists(t, filepath.Join(a, "new"), "the other's end is not that of this one")
		})
		e.write(m, "later", "l")
		ref, err := m.Commit(e.ctx)
		require.NoError(t, err)
		require.Len(t, e.files(ref, cache.Access{}), 3)
		e.release(base, ref)
	})
}

func TestATreeWhoseFilesAreGoneIsLost(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "x", "x")
		b := e.step(a, "y", "y")
		above := e.step(b)
		e.release(above)
		_, err := b.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
		require.NoError(t, err)
		dirs, err := filepath.Glob(filepath.Join(e.root, "cache", "snapshots", e.name, "snapshots", "*"))
		require.NoError(t, err)
		for _, d := range dirs {
			require.NoError(t, os.RemoveAll(d))
		}
		var dropped []string
		e.SetOnDrop(func(ids []string) { dropped = append(dropped, ids...) })
		mnt, err := b.Mount(e.ctx, true, cache.Access{})
		if err == nil {
			_, _, err = mnt.Mount()
		}
		require.ErrorIs(t, err, cache.ErrLost)
		require.ErrorContains(t, err, b.ID())
		require.Equal(t, []string{above.ID(), b.ID()}, dropped, "with what stands on it")
		_, err = e.Get(e.ctx, b.ID())
		require.ErrorIs(t, err, cache.ErrNotFound)
		e.release(a, b)
		e.prune(cache.PruneOpt{})
		require.Empty(t, e.usage())
	})
}

func TestDamagedFilesOfTheStateCostTheCacheOnly(t *testing.T) {
	damage := map[string]func(b []byte){
		"all of it":             func(b []byte) { clear(b) },
		"all but the first two": func(b []byte) { clear(b[2*os.Getpagesize():]) },
	}
	for _, file := range []string{"records.db", "content.db", "snapshots/overlayfs/metadata.db"} {
		for name, fn := range damage {
			t.Run(file+" "+name, func(t *testing.T) { testDamagedFile(t, file, fn) })
		}
	}
}

func testDamagedFile(t *testing.T, file string, damage func(b []byte)) {
	t.Helper()
	e := newEnv(t, snapshot.Overlay)
	a := e.step(nil, "x", "x")
	b := e.step(a, "y", "y")
	_, err := b.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, err)
	e.release(a, b)
	e.close()
	path := filepath.Join(e.root, "cache", file)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	damage(content)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	e.open()
	for _, u := range e.usage() {
		ref, err := e.Get(e.ctx, u.ID)
		require.NoError(t, err)
		require.NotEmpty(t, e.files(ref, cache.Access{}))
		_, err = ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
		require.NoError(t, err)
		e.release(ref)
	}
	ref := e.step(nil, "z", "z")
	require.Len(t, e.files(ref, cache.Access{}), 1)
	e.release(ref)
}
