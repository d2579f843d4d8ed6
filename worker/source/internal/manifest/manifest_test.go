package manifest

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

var amd64 = platforms.MustParse("linux/amd64")

func TestBadConfigs(t *testing.T) {
	for _, data := range []string{`[]`, `{"rootfs":{"diff_ids":["sha256:1"]}}`, `{}`} {
		_, err := decodeConfig("sha256:x", []byte(data), 1)
		var bad *FormatError
		require.ErrorAs(t, err, &bad, data)
	}
}

func TestForeignAnnotationsOfLayersAreNotBelieved(t *testing.T) {
	got := cleanLayer(ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: "sha256:x", Size: 1, Data: []byte("x"),
		Annotations: map[string]string{"containerd.io/uncompressed": "sha256:y", "buildkit/createdat": "z", "own": "kept"},
	})
	require.Equal(t, map[string]string{"own": "kept"}, got.Annotations)
	require.Nil(t, got.Data)
}

func TestOnlyForeignLayersKeepTheirURLs(t *testing.T) {
	for mediaType, want := range map[string][]string{
		ocispec.MediaTypeImageLayerGzip:                 nil,
		images.MediaTypeDockerSchema2LayerGzip:          nil,
		images.MediaTypeDockerSchema2LayerForeignGzip:   {"https://a/b", "http://c"},
		ocispec.MediaTypeImageLayerNonDistributableGzip: {"https://a/b", "http://c"}, //nolint:staticcheck // layers of that type exist
	} {
		got := cleanLayer(ocispec.Descriptor{MediaType: mediaType, URLs: []string{"https://a/b", "ftp://a", "file:///b", "http://c"}})
		require.Equal(t, want, got.URLs, mediaType)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(ocispec.MediaTypeImageManifest, []byte(`{"config":{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1},"layers":[]}`))
	f.Add("", []byte(`{"manifests":[{"platform":{"os":"linux"}}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, data []byte) {
		doc, err := decode("sha256:x", mediaType, data)
		if err != nil {
			return
		}
		sel := &selection{match: platforms.Only(amd64)}
		for _, d := range sel.candidates(doc.manifests) {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Fatal(d)
			}
		}
		_, _ = decodeConfig("sha256:x", data, len(doc.layers))
	})
}
