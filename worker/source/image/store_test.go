package image

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
)

// store is containerd's content store with leases, as the daemon has it.
type store struct {
	db      *metadata.DB
	content content.Store
	leases  leases.Manager
}

func newStore(t *testing.T) (context.Context, *store) {
	t.Helper()
	dir := t.TempDir()
	cs, err := local.NewStore(filepath.Join(dir, "content"))
	require.NoError(t, err)
	bdb, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bdb.Close()) })
	db := metadata.NewDB(bdb, cs, map[string]snapshots.Snapshotter{})
	require.NoError(t, db.Init(t.Context()))
	ctx := namespaces.WithNamespace(t.Context(), "test")
	return ctx, &store{db: db, content: db.ContentStore(), leases: metadata.NewLeaseManager(db)}
}

func (s *store) source(cfg Config) *Source {
	cfg.Content, cfg.Leases = s.content, s.leases
	return New(cfg)
}
