package cache_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/snapshot"
)

// leased stores a blob under a lease of its own and returns its digest.
func (e *env) leased(text string, opts ...leases.Opt) digest.Digest {
	e.t.Helper()
	lease, err := e.Leases().Create(e.ctx, append(opts, leases.WithRandomID())...)
	require.NoError(e.t, err)
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	ctx := leases.WithLease(e.ctx, lease.ID)
	require.NoError(e.t, content.WriteBlob(ctx, e.Content(), text, bytes.NewReader([]byte(text)), desc))
	return desc.Digest
}

func (e *env) has(dgst digest.Digest) bool {
	e.t.Helper()
	_, err := e.Content().Info(e.ctx, dgst)
	if err != nil {
		require.True(e.t, errdefs.IsNotFound(err), err)
	}
	return err == nil
}

func TestContentGoesSoonAfterItsLeaseHasExpired(t *testing.T) {
	for name, restart := range map[string]bool{"in a daemon that goes on": false, "in one that was restarted": true} {
		t.Run(name, func(t *testing.T) {
			root := tmpfs(t, "16m")
			synctest.Test(t, func(t *testing.T) {
				e := &env{t: t, ctx: t.Context(), root: root, name: snapshot.Native}
				e.open()
				defer e.close()
				brief, long := e.leased("brief", leases.WithExpiration(5*time.Minute)), e.leased("long", leases.WithExpiration(time.Hour))
				endless := e.leased("endless")
				if restart {
					e.reopen()
				}
				time.Sleep(4 * time.Minute) //nolint:forbidigo // moves the clock of the bubble
				synctest.Wait()
				require.True(t, e.has(brief))
				time.Sleep(time.Hour) //nolint:forbidigo // moves the clock of the bubble
				synctest.Wait()
				require.False(t, e.has(brief))
				require.False(t, e.has(long))
				require.True(t, e.has(endless))
			})
		})
	}
}

func TestAPruneOfEverythingRemovesSpareContent(t *testing.T) {
	e := newEnv(t, snapshot.Overlay)
	spare := e.leased("spare", leases.WithExpiration(time.Hour), leases.WithLabel(cache.LabelSpare, "true"))
	used := e.leased("used", leases.WithExpiration(time.Hour))
	for _, opt := range []cache.PruneOpt{{}, {All: true, Filters: []string{"type==regular"}}, {All: true, KeepDuration: time.Hour}, {All: true, MaxUsedSpace: 1}} {
		e.prune(opt)
		require.True(t, e.has(spare))
	}
	e.prune(cache.PruneOpt{All: true})
	require.False(t, e.has(spare))
	require.True(t, e.has(used))
}
