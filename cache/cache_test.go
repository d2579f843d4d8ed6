package cache_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

// env is a cache of a test.
type env struct {
	*cache.Manager
	t    *testing.T
	ctx  context.Context
	root string
	name string
}

// each runs a test with every snapshotter. The cache is checked and closed at its end.
func each(t *testing.T, test func(t *testing.T, e *env)) {
	for _, name := range []string{snapshot.Overlay, snapshot.Native} {
		t.Run(name, func(t *testing.T) { test(t, newEnv(t, name)) })
	}
}

func newEnv(t *testing.T, name string) *env {
	e := &env{t: t, ctx: context.WithoutCancel(t.Context()), root: tmpfs(t, "512m"), name: name}
	e.open()
	t.Cleanup(e.close)
	return e
}

// tmpfs returns a file system of a given size in memory.
func tmpfs(t testing.TB, size string) string {
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size), "tests mount file systems and need root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func (e *env) open() {
	e.t.Helper()
	m, err := cache.Open(e.ctx, cache.Config{Root: e.root, Snapshotter: e.name})
	require.NoError(e.t, err)
	require.Equal(e.t, e.name, m.SnapshotterName())
	e.Manager = m
}

func (e *env) close() {
	e.t.Helper()
	require.NoError(e.t, e.Check(e.ctx))
	require.NoError(e.t, e.Close())
	require.NoError(e.t, e.Close(), "Close may be called again")
}

func (e *env) reopen() {
	e.t.Helper()
	e.close()
	e.open()
}

func (e *env) release(refs ...*cache.Ref) {
	e.t.Helper()
	for _, r := range refs {
		require.NoError(e.t, r.Release(e.ctx))
	}
}

// newTree makes a mutable tree on parent with the files given as name, content, …
func (e *env) newTree(parent *cache.Ref, opt cache.NewOpt, files ...string) *cache.MutableRef {
	e.t.Helper()
	m, err := e.New(e.ctx, parent, cache.Access{}, opt)
	require.NoError(e.t, err)
	e.write(m, files...)
	return m
}

func (e *env) write(m *cache.MutableRef, files ...string) {
	e.t.Helper()
	mnt, err := m.Mount(e.ctx, false)
	require.NoError(e.t, err)
	e.mounted(mnt, func(dir string) {
		for i := 0; i < len(files); i += 2 {
			name := filepath.Join(dir, files[i])
			require.NoError(e.t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(e.t, os.WriteFile(name, []byte(files[i+1]), 0o644))
		}
	})
}

func (e *env) mounted(m snapshot.Mountable, fn func(dir string)) {
	e.t.Helper()
	dir, release, err := snapshot.MountTemp(m)
	require.NoError(e.t, err)
	defer func() { require.NoError(e.t, release()) }()
	fn(dir)
}

// step makes an immutable tree.
func (e *env) step(parent *cache.Ref, files ...string) *cache.Ref {
	e.t.Helper()
	ref, err := e.newTree(parent, cache.NewOpt{}, files...).Commit(e.ctx)
	require.NoError(e.t, err)
	return ref
}

// files returns the regular files of a tree.
func (e *env) files(ref *cache.Ref, acc cache.Access) map[string]string {
	e.t.Helper()
	mnt, err := ref.Mount(e.ctx, true, acc)
	require.NoError(e.t, err)
	all := map[string]string{}
	e.mounted(mnt, func(dir string) {
		require.NoError(e.t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, _ := filepath.Rel(dir, p)
			b, err := os.ReadFile(p)
			all[rel] = string(b)
			return err
		}))
	})
	return all
}

func (e *env) usage(filters ...string) []cache.Usage {
	e.t.Helper()
	u, err := e.DiskUsage(e.ctx, filters)
	require.NoError(e.t, err)
	return u
}

func (e *env) prune(opts ...cache.PruneOpt) []string {
	e.t.Helper()
	var ids []string
	require.NoError(e.t, e.Prune(e.ctx, opts, func(u cache.Usage) { ids = append(ids, u.ID) }))
	return ids
}

// remote is a place that blobs are fetched from.
type remote struct {
	blob.Proofs

	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	// opened counts reads by digest.
	opened map[digest.Digest]int
	open   func(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
	scope  event.Scope
	repo   string
}

func newRemote() *remote {
	return &remote{blobs: map[digest.Digest][]byte{}, opened: map[digest.Digest]int{}}
}

func (r *remote) add(data []byte) ocispec.Descriptor {
	d := digest.FromBytes(data)
	r.blobs[d] = data
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(len(data))}
}

func (r *remote) Open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	r.mu.Lock()
	r.opened[desc.Digest]++
	r.mu.Unlock()
	if r.open != nil {
		return r.open(ctx, desc, offset)
	}
	return io.NopCloser(bytes.NewReader(r.blobs[desc.Digest][offset:])), nil
}

func (r *remote) Scope() event.Scope { return r.scope }

func (r *remote) Repository() string { return r.repo }

func (r *remote) access() cache.Access { return cache.Access{Blobs: finder{r}} }

type finder struct{ r *remote }

func (f finder) Find(d digest.Digest) []blob.Source {
	if _, ok := f.r.blobs[d]; ok {
		return []blob.Source{f.r}
	}
	return nil
}
