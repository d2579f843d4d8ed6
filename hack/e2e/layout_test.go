package e2e_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestAnImageOfAnOCILayoutIsBuiltOn(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	lay := filepath.Join(t.TempDir(), "lay")
	base := dockerfile(t, "FROM busybox", "RUN echo from the layout > /f")
	written := d.Build(t, base, "--output=type=oci,tar=false,dest="+lay)
	for _, log := range []string{written.Stderr, d.Logs()} {
		require.NotContains(t, log, "fsverity", "nobody needs to know")
	}
	var index ocispec.Index
	require.NoError(t, json.Unmarshal([]byte(read(t, lay, "index.json")), &index))
	named := func(store string) []string {
		return []string{
			"--oci-layout=" + store + "=" + lay,
			"--opt=context:base=oci-layout://store@" + index.Manifests[0].Digest.String(),
		}
	}

	dir := dockerfile(t, "FROM base AS run", "RUN cat /f > /g", "FROM scratch", "COPY --from=run /g /g", "COPY --from=base /f /f")
	out := t.TempDir()
	first := d.Build(t, dir, append(named("store"), "--output=type=local,dest="+out)...)
	require.NotEmpty(t, ran(first))
	require.NotContains(t, first.Stderr, "fsverity", "nothing is tried on the layout")
	require.Equal(t, "from the layout\n", read(t, out, "g"))
	require.Equal(t, "from the layout\n", read(t, out, "f"))
	for _, step := range ran(d.Build(t, dir, named("store")...)) {
		require.NotRegexp(t, "RUN|COPY", step, "the next client gets the same from the cache")
	}

	failed := d.Buildctl(t, harness.DockerfileArgs(dir, named("other")...)...)
	require.Equal(t, 1, failed.Code)
	require.Contains(t, failed.Stderr, `oci-layout store store: unknown content store "oci:store"`)
	requirePruned(t, d)
	require.NotEmpty(t, ran(d.Build(t, dir, named("store")...)), "after a prune it is read anew")
}
