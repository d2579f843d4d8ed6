package cache_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

func TestUsageShowsEveryRecord(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "f", string(make([]byte, 100_000)))
		require.NoError(t, a.Describe(cache.Description{Text: "RUN a", Type: cache.Internal}))
		b := e.step(a, "g", "g")
		e.release(b)
		byID := func() map[string]cache.Usage {
			all := map[string]cache.Usage{}
			for _, u := range e.usage() {
				all[u.ID] = u
			}
			return all
		}
		u := byID()[a.ID()]
		require.Equal(t, "RUN a", u.Description)
		require.Equal(t, cache.Internal, u.Type)
		require.False(t, u.Mutable, "built upon")
		require.True(t, u.InUse)
		require.Greater(t, u.Size, int64(100_000))
		require.Less(t, u.Size, int64(200_000))
		require.Nil(t, u.LastUsedAt)
		require.Zero(t, u.UsageCount)
		require.Nil(t, u.Parents)
		u = byID()[b.ID()]
		require.Equal(t, []string{a.ID()}, u.Parents)
		require.True(t, u.Mutable, "not built upon yet")
		require.False(t, u.InUse)
		require.Equal(t, 1, u.UsageCount)
		require.WithinDuration(t, time.Now(), *u.LastUsedAt, time.Minute)
		require.Equal(t, cache.Regular, u.Type)
		size, err := a.Size(e.ctx)
		require.NoError(t, err)
		_, err = a.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, cache.Access{})
		require.NoError(t, err)
		with, err := a.Size(e.ctx)
		require.NoError(t, err)
		require.Greater(t, with, size+100_000, "with the blob")
		e.release(a)
		before := byID()
		e.reopen()
		after := byID()
		for id, u := range before {
			require.True(t, u.LastUsedAt.Equal(*after[id].LastUsedAt))
			require.True(t, u.CreatedAt.Equal(after[id].CreatedAt))
			v := after[id]
			v.LastUsedAt, v.CreatedAt = u.LastUsedAt, u.CreatedAt
			require.Equal(t, u, v)
		}
	})
}

func TestFiltersSelectRecords(t *testing.T) {
	e := newEnv(t, "overlayfs")
	a := e.step(nil)
	b := e.step(a)
	require.NoError(t, b.Describe(cache.Description{Text: "RUN make all", Type: cache.GitCheckout}))
	m := e.newTree(nil, cache.NewOpt{Retain: true, Description: cache.Description{Type: cache.CacheMount}})
	require.NoError(t, m.Release(e.ctx))
	for filter, want := range map[string][]string{
		"id==" + a.ID():         {a.ID()},
		"id~=^" + a.ID()[:8]:    {a.ID()},
		"parents==" + a.ID():    {b.ID()},
		"description~=make":     {b.ID()},
		"type==exec.cachemount": {m.ID()},
		"type==regular,inuse":   {a.ID()},
		"mutable":               {b.ID(), m.ID()},
		"immutable":             {a.ID()},
		"private":               {a.ID(), b.ID(), m.ID()},
		"shared":                {},
		"inuse":                 {a.ID(), b.ID()},
		"nonsense==1":           {},
	} {
		got := []string{}
		for _, u := range e.usage(filter) {
			got = append(got, u.ID)
		}
		require.ElementsMatch(t, want, got, filter)
	}
	require.Len(t, e.usage("type==exec.cachemount", "id=="+a.ID()), 2, "any of several")
	_, err := e.DiskUsage(e.ctx, []string{"type=="})
	require.ErrorContains(t, err, "failed to parse diskusage filters [type==]: ")
	err = e.Prune(e.ctx, []cache.PruneOpt{{Filters: []string{"=="}}}, nil)
	require.ErrorContains(t, err, "failed to parse prune filters")
	e.release(a, b)
}

func TestPruneRemovesWhatIsNotUsed(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "a", "a")
		b := e.step(a, "b", "b")
		c := e.step(b, "c", "c")
		lazy := e.image(newRemote(), "x", "y")
		m := e.newTree(nil, cache.NewOpt{Retain: true}, "m", "m")
		im, err := m.Commit(e.ctx)
		require.NoError(t, err)
		var dropped []string
		e.SetOnDrop(func(ids []string) { dropped = append(dropped, ids...) })
		e.release(c, lazy, im)
		require.NoError(t, m.Release(e.ctx))

		removed := e.prune(cache.PruneOpt{})
		require.Len(t, removed, 4)
		require.Equal(t, c.ID(), removed[slices.Index(removed, c.ID())])
		require.Contains(t, removed, m.ID(), "two records of one tree go together")
		require.Subset(t, dropped, removed)
		require.Contains(t, dropped, im.ID(), "also the one that is not shown")
		require.Len(t, e.usage(), 2)
		require.Equal(t, map[string]string{"a": "a", "b": "b"}, e.files(b, cache.Access{}))
		e.release(a, b)
		require.Equal(t, []string{b.ID(), a.ID()}, e.prune(cache.PruneOpt{}))
		e.reopen()
		require.Empty(t, e.usage())
	})
}

func TestTheSpaceIsFreeWhenPruneReturns(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		free := func() uint64 {
			var st syscall.Statfs_t
			require.NoError(t, syscall.Statfs(e.root, &st))
			return st.Bavail * uint64(st.Bsize)
		}
		ref := e.step(nil, "big", string(make([]byte, 20<<20)))
		_, err := ref.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, cache.Access{})
		require.NoError(t, err)
		e.release(ref)
		before := free()
		e.prune(cache.PruneOpt{All: true})
		require.Greater(t, free(), before+39<<20)
	})
}

func TestInternalRecordsNeedAll(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil)
	require.NoError(t, ref.Describe(cache.Description{Type: cache.Frontend}))
	e.release(ref)
	require.Empty(t, e.prune(cache.PruneOpt{}))
	require.Len(t, e.prune(cache.PruneOpt{All: true}), 1)
}

func TestDroppedRecordsGoWhenTheyAreNotUsed(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		a := e.step(nil, "a", "a")
		b := e.step(a, "b", "b")
		require.NoError(t, e.Drop(e.ctx, a.ID(), "unknown"))
		_, err := e.Get(e.ctx, a.ID())
		require.ErrorIs(t, err, cache.ErrNotFound)
		e.release(a)
		require.Equal(t, map[string]string{"a": "a", "b": "b"}, e.files(b, cache.Access{}))
		e.release(b)
		e.reopen()
		_, err = e.Get(e.ctx, a.ID())
		require.ErrorIs(t, err, cache.ErrNotFound)
		b, err = e.Get(e.ctx, b.ID())
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "a", "b": "b"}, e.files(b, cache.Access{}))
		require.NoError(t, e.Drop(e.ctx, b.ID()))
		e.release(b)
		require.Empty(t, e.usage())
	})
}
