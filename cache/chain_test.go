package cache_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

// upper returns the folder that a tree is written to, so that a test of many steps need not mount.
func upper(t testing.TB, m *cache.MutableRef) (string, func() error) {
	mnt, err := m.Mount(context.Background(), false)
	require.NoError(t, err)
	mounts, release, err := mnt.Mount()
	require.NoError(t, err)
	for _, o := range mounts[0].Options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			return dir, release
		}
	}
	return mounts[0].Source, release
}

func (e *env) quickStep(parent *cache.Ref, name string) *cache.Ref {
	m, err := e.New(e.ctx, parent, cache.Access{}, cache.NewOpt{})
	require.NoError(e.t, err)
	dir, release := upper(e.t, m)
	require.NoError(e.t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	require.NoError(e.t, release())
	ref, err := m.Commit(e.ctx)
	require.NoError(e.t, err)
	return ref
}

func TestAChainOf2000Trees(t *testing.T) {
	const length = 2000
	e := newEnv(t, snapshot.Overlay)
	var ref *cache.Ref
	var quarters []time.Duration
	start := time.Now()
	for i := range length {
		next := e.quickStep(ref, fmt.Sprint(i))
		e.release(ref)
		ref = next
		if (i+1)%(length/4) == 0 {
			quarters = append(quarters, time.Since(start))
			start = time.Now()
		}
	}
	t.Log("quarters:", quarters)
	require.Less(t, quarters[3], 4*quarters[0]+time.Second, "the cost of a step does not grow with the chain")
	require.Len(t, e.files(ref, cache.Access{}), length)

	id := ref.ID()
	e.release(ref)
	start = time.Now()
	e.reopen()
	require.Less(t, time.Since(start), 10*time.Second)
	ref, err := e.Get(e.ctx, id)
	require.NoError(t, err)
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{Type: blob.Uncompressed}, cache.Access{})
	require.NoError(t, err)
	require.Len(t, layers, length)
	require.Len(t, e.files(ref, cache.Access{}), length)
	e.release(ref)
	require.Len(t, e.prune(cache.PruneOpt{}), length)
	require.Empty(t, e.usage())
}

func BenchmarkStep(b *testing.B) {
	ctx := b.Context()
	m, err := cache.Open(ctx, cache.Config{Root: tmpfs(b, "512m"), Snapshotter: snapshot.Overlay})
	require.NoError(b, err)
	var ref *cache.Ref
	for b.Loop() {
		mut, err := m.New(ctx, ref, cache.Access{}, cache.NewOpt{})
		require.NoError(b, err)
		next, err := mut.Commit(ctx)
		require.NoError(b, err)
		_ = ref.Release(ctx)
		ref = next
	}
	_ = ref.Release(ctx)
	require.NoError(b, m.Close())
}
