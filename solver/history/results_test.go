package history_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/solver/feed"
	"github.com/openbuildkit/buildkit/solver/history"
)

// An image that was exported can be inspected by its record, though its files are not there.
func TestTheManifestsOfAnImageAreKeptAndItsLayersAreNot(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	put := func(mediaType string, v any) ocispec.Descriptor {
		data, err := json.Marshal(v)
		require.NoError(t, err)
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		require.NoError(t, content.WriteBlob(t.Context(), store, d.Digest.String(), bytes.NewReader(data), d))
		return d
	}
	config := put(ocispec.MediaTypeImageConfig, "config")
	layer := put(ocispec.MediaTypeImageLayerGzip, "layer")
	statement := put("application/vnd.in-toto+json", "statement")
	image := put(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
	attestation := put(ocispec.MediaTypeImageManifest, ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{statement}})
	require.NoError(t, content.WriteBlob(t.Context(), store, "empty", bytes.NewReader([]byte("{}")), ocispec.Descriptor{Digest: ocispec.DescriptorEmptyJSON.Digest, Size: 2}))
	index := put(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image, attestation, image}})

	s := open(t, history.Config{})
	told := feed.New("")
	b := s.Begin(&history.Record{Ref: "r"})
	require.NoError(t, b.AttachImage(t.Context(), store, index))
	require.ErrorIs(t, b.AttachImage(t.Context(), store, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("no")}), errdefs.ErrNotFound)
	require.Error(t, b.AttachImage(t.Context(), store, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("no"), Size: 1 << 40}))
	told.Close()
	b.End(history.Outcome{Feed: told})
	require.NoError(t, s.Flush(t.Context()))
	for _, d := range []ocispec.Descriptor{index, image, attestation, config, statement} {
		blob(t, s, &controlpb.Descriptor{Digest: d.Digest.String(), Size: d.Size})
	}
	_, err = s.Content().Info(t.Context(), layer.Digest)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	var none *history.Build
	require.NoError(t, none.AttachImage(t.Context(), store, index))
}
