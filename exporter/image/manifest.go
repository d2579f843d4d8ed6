package image

import (
	"encoding/json"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// mediaTypes are those of one image format.
type mediaTypes struct{ config, manifest, index string }

func typesOf(oci bool) mediaTypes {
	if oci {
		return mediaTypes{ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex}
	}
	return mediaTypes{
		images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList,
	}
}

// encode writes a manifest or index as it is stored.
func encode(v any) ([]byte, error) { return json.MarshalIndent(v, "", "  ") }

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// makeManifest returns the manifest of an image.
func makeManifest(types mediaTypes, config ocispec.Descriptor, layers []cache.Layer, annotations map[string]string) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   types.manifest,
		Config:      config,
		Layers:      []ocispec.Descriptor{},
		Annotations: annotations,
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	return encode(m)
}

// makeIndex returns the index over manifests.
func makeIndex(types mediaTypes, manifests []ocispec.Descriptor, annotations map[string]string) ([]byte, error) {
	return encode(ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   types.index,
		Manifests:   manifests,
		Annotations: annotations,
	})
}

// cleanLayer returns the descriptor of a layer as an image tells it: without notes that are for
// ourselves, and in Docker's format without any.
func cleanLayer(d ocispec.Descriptor, oci, keepNonDist bool) ocispec.Descriptor {
	plain := distributable(d.MediaType)
	foreign := plain != d.MediaType
	if form, known := blob.FromMediaType(plain); known {
		plain = blob.MediaType(form, !oci)
	}
	switch {
	case !foreign:
		d.MediaType = plain
	case keepNonDist:
		d.MediaType = foreignType(plain)
	default:
		d.MediaType, d.URLs = plain, nil
	}
	annotations := map[string]string{}
	for k, v := range d.Annotations {
		if oci && !internalAnnotation(k) {
			annotations[k] = v
		}
	}
	if d.Annotations = nil; len(annotations) > 0 {
		d.Annotations = annotations
	}
	return d
}

func internalAnnotation(k string) bool {
	return k == "containerd.io/uncompressed" || k == "buildkit/createdat" ||
		strings.HasPrefix(k, "containerd.io/distribution.source.")
}

// distributable returns the media type of a layer without the note that it is not to be
// distributed.
func distributable(mediaType string) string {
	mediaType = strings.Replace(mediaType, "layer.nondistributable.", "layer.", 1)
	return strings.Replace(mediaType, ".foreign.diff.", ".diff.", 1)
}

// foreignType returns the media type of a layer with the note that it is not to be distributed.
func foreignType(mediaType string) string {
	if t, ok := strings.CutPrefix(mediaType, "application/vnd.oci.image.layer."); ok {
		return "application/vnd.oci.image.layer.nondistributable." + t
	}
	return strings.Replace(mediaType, ".diff.", ".foreign.diff.", 1)
}
