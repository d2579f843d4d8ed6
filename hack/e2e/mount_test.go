package e2e_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/hack/testimage"
)

// An image on a base of the same registry moves none of the base's layers, in either direction.
func TestAPushMountsTheLayersOfAnUntouchedBase(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	p := registrytest.StartProxy(t, s.Addr)
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	base := image(t, regular("base", "of the base\n"))
	require.NoError(t, testimage.Push(t.Context(), s.Addr+"/lib/base:1", base))
	layers, err := base.Layers()
	require.NoError(t, err)

	dir := dockerfile(t, "FROM "+p.Addr+"/lib/base:1", "ENV ADDED=1")
	d.Build(t, dir, toRegistry(p.Addr+"/app/one:1"))
	requests := p.Requests()
	mounts, fetched := 0, 0
	for _, r := range requests {
		if strings.HasPrefix(r, "POST /v2/app/one/") && strings.HasSuffix(r, " from lib/base") {
			mounts++
		}
		for _, l := range layers {
			dgst, err := l.Digest()
			require.NoError(t, err)
			if strings.HasPrefix(r, "GET ") && strings.HasSuffix(r, dgst.String()) {
				fetched++
			}
		}
	}
	require.Equal(t, len(layers), mounts, requests)
	require.Zero(t, fetched, requests)
	requireValid(t, s.Addr+"/app/one:1")

	d.Build(t, dir, toRegistry(p.Addr+"/app/one:1"))
	again := p.Requests()
	t.Logf("%d requests of the first push and its pull, %d of the next", len(requests), len(again))
	require.LessOrEqual(t, len(again), len(layers)+1+1+2, "a request for each blob and the manifest, two for the base: %q", again)
	requirePruned(t, d)
}
