package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// A pull of six layers and their unpacking, against the tools that do one after the other.
func BenchmarkPull(b *testing.B) {
	dir := tmpfs(b, "8g")
	registry := harness.StartRegistry(b)
	registry.Push(b, "library/six", sixLayers(b, dir))
	d := harness.StartDaemon(b, harness.DaemonOptions{Dir: dir, Registry: registry})
	forced := llb.Scratch().File(llb.Copy(llb.Image("docker.io/library/six"), "/0/file00000", "/file"))
	definition := marshal(b, forced)
	copied, unpacked := filepath.Join(dir, "copied"), filepath.Join(dir, "unpacked")
	pair(b, func() time.Duration {
		prune(b, d)
		return timed(func() { requireSolved(b, solve(b, d, definition)) })
	}, func() time.Duration {
		require.NoError(b, os.RemoveAll(copied))
		require.NoError(b, os.RemoveAll(unpacked))
		require.NoError(b, os.Mkdir(unpacked, 0o755))
		return shell(b, `skopeo copy -q --src-tls-verify=false docker://"$1"/library/six dir:"$2"
find "$2" -type f -size +1M | while read layer; do tar -C "$3" -xzf "$layer"; done`, registry.Host, copied, unpacked)
	})
	b.ReportMetric(float64(peakMemory(b, d.Pid()))/(1<<20), "MiB/peak")
}

// sixLayers returns an image of six layers of 48 MiB.
func sixLayers(b *testing.B, dir string) v1.Image {
	b.Helper()
	var layers []v1.Layer
	for i := range 6 {
		source := mixedFiles(b, filepath.Join(dir, "layers", fmt.Sprint(i)), 48)
		archive := filepath.Join(dir, fmt.Sprintf("layer%d.tar", i))
		command(b, "tar", "-C", filepath.Dir(source), "-c", "-f", archive, filepath.Base(source))
		layer, err := tarball.LayerFromFile(archive)
		require.NoError(b, err)
		layers = append(layers, layer)
	}
	image, err := mutate.AppendLayers(empty.Image, layers...)
	require.NoError(b, err)
	config, err := image.ConfigFile()
	require.NoError(b, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	image, err = mutate.ConfigFile(image, config)
	require.NoError(b, err)
	return image
}
