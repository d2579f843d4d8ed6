package oci

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

// put stores a blob.
func put(t *testing.T, cs content.Store, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), cs, desc.Digest.String(), bytes.NewReader(data), desc))
	return desc
}

func putJSON(t *testing.T, cs content.Store, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	require.NoError(t, err)
	return put(t, cs, mediaType, data)
}

// Importers have seen the archives of containerd's exporter; ours are the same.
func TestArchivesAreThoseOfContainerd(t *testing.T) {
	cs, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	shared := put(t, cs, ocispec.MediaTypeImageLayerGzip, bytes.Repeat([]byte("shared"), 300000))
	image := func(arch string) ocispec.Descriptor {
		return putJSON(t, cs, ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    putJSON(t, cs, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}),
			Layers:    []ocispec.Descriptor{shared, put(t, cs, ocispec.MediaTypeImageLayer, []byte(arch)), shared},
		})
	}
	one := image("amd64")
	one.Annotations = map[string]string{"a": "b"}
	several := putJSON(t, cs, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{one, image("arm64")},
	})
	for _, names := range [][]string{
		nil,
		{"docker.io/library/a:1"},
		{"example.org/a:1", "docker.io/user/b:latest", "example.org:5000/c@" + one.Digest.String(), "example.org/d:2@" + one.Digest.String()},
	} {
		for _, top := range []ocispec.Descriptor{one, several} {
			for _, docker := range []bool{false, true} {
				opts := []archive.ExportOpt{archive.WithAllPlatforms(), archive.WithManifest(top, names...)}
				if !docker {
					opts = append(opts, archive.WithSkipDockerManifest())
				}
				var want, got bytes.Buffer
				require.NoError(t, archive.Export(t.Context(), cs, &want, opts...))
				l, err := newLayout(t.Context(), cs, top, names, docker)
				require.NoError(t, err)
				require.NoError(t, l.write(t.Context(), &got))
				require.True(t, bytes.Equal(want.Bytes(), got.Bytes()), "%s %v docker=%v", top.MediaType, names, docker)
			}
		}
	}

	t.Run("what is missing or too short is not exported", func(t *testing.T) {
		l, err := newLayout(t.Context(), cs, one, nil, false)
		require.NoError(t, err)
		short := shared
		short.Size++
		l.blobs[shared.Digest] = short
		require.ErrorContains(t, l.write(t.Context(), new(bytes.Buffer)), "export "+shared.Digest.String())
		require.NoError(t, cs.Delete(t.Context(), shared.Digest))
		require.Error(t, l.write(t.Context(), new(bytes.Buffer)))
		require.NoError(t, cs.Delete(t.Context(), one.Digest))
		_, err = newLayout(t.Context(), cs, one, nil, false)
		require.Error(t, err)
	})
}
