// Package manifest reads images as documents: manifests and indexes of OCI and Docker, and configs.
// It finds the image of a platform and makes the lazy tree of its layers. Where the documents come
// from, and who may read them, is the business of its users, the sources of images in registries
// and in OCI layouts.
//
// What is read is hostile: it is bounded in size, depth and number, and every digest and size in it
// is checked before it is used.
package manifest

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// How many bytes are read of a document: of a manifest more than anything that a registry stores, of
// a config enough for a build cache that is embedded in it.
const (
	MaxManifest = 4 << 20
	MaxConfig   = 16 << 20
)

const (
	// maxDepth and maxManifests bound what one image may consist of.
	maxDepth     = 4
	maxManifests = 64
)

// FormatError says that a manifest or config is not what it should be.
type FormatError struct {
	Digest digest.Digest
	Reason string
}

// Error names the object.
func (e *FormatError) Error() string { return fmt.Sprintf("invalid image %s: %s", e.Digest, e.Reason) }

// document is a manifest or an index, of OCI or Docker.
type document struct {
	index     bool
	manifests []ocispec.Descriptor
	config    ocispec.Descriptor
	layers    []ocispec.Descriptor
}

// decode reads a manifest or index. The media type that came with it may be missing or general;
// one that contradicts the document is an error, as is a document that could be read as either.
func decode(dgst digest.Digest, mediaType string, data []byte) (*document, error) {
	bad := func(format string, args ...any) (*document, error) {
		return nil, &FormatError{dgst, fmt.Sprintf(format, args...)}
	}
	var doc struct {
		MediaType string               `json:"mediaType"`
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		FSLayers  json.RawMessage      `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return bad("%v", err)
	}
	kind, own := kindOf(mediaType), kindOf(doc.MediaType)
	switch {
	case kind == unsupported:
		return bad("unsupported media type %s", mediaType)
	case own == unsupported:
		return bad("unsupported media type %s", doc.MediaType)
	case doc.FSLayers != nil:
		return bad("unsupported media type %s", images.MediaTypeDockerSchema1Manifest)
	case kind != unknown && own != unknown && kind != own:
		return bad("media type %s, but it says %s", mediaType, doc.MediaType)
	case doc.Manifests != nil && (doc.Config != nil || doc.Layers != nil):
		return bad("manifest and index at once")
	}
	if kind == unknown {
		kind = own
	}
	if kind == unknown && doc.Manifests != nil {
		kind = index
	}
	if kind == index {
		return &document{index: true, manifests: doc.Manifests}, checkAll(dgst, doc.Manifests)
	}
	if doc.Config == nil {
		return bad("manifest without config")
	}
	m := &document{config: *doc.Config, layers: doc.Layers}
	return m, checkAll(dgst, append([]ocispec.Descriptor{m.config}, m.layers...))
}

type kind int

const (
	unknown kind = iota
	manifest
	index
	unsupported
)

func kindOf(mediaType string) kind {
	mediaType = strings.TrimSpace(mediaType)
	if base, _, err := mime.ParseMediaType(mediaType); err == nil {
		mediaType = base
	}
	switch mediaType {
	case ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest:
		return manifest
	case ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList:
		return index
	case "", "text/plain", "application/json", "application/octet-stream":
		return unknown
	}
	return unsupported
}

// checkAll checks the descriptors of a document.
func checkAll(dgst digest.Digest, descs []ocispec.Descriptor) error {
	for _, d := range descs {
		if err := d.Digest.Validate(); err != nil {
			return &FormatError{dgst, fmt.Sprintf("digest %q: %v", d.Digest, err)}
		}
		if d.Size < 0 {
			return &FormatError{dgst, fmt.Sprintf("size %d of %s", d.Size, d.Digest)}
		}
	}
	return nil
}

// imageConfig is what is needed of an image config.
type imageConfig struct {
	ocispec.Platform
	RootFS struct {
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// decodeConfig reads the config of an image with n layers.
func decodeConfig(dgst digest.Digest, data []byte, n int) (*imageConfig, error) {
	cfg := &imageConfig{}
	if err := json.Unmarshal(data, cfg); err != nil {
		return nil, &FormatError{dgst, err.Error()}
	}
	if len(cfg.RootFS.DiffIDs) != n {
		return nil, &FormatError{dgst, fmt.Sprintf("%d diff ids for %d layers", len(cfg.RootFS.DiffIDs), n)}
	}
	for _, id := range cfg.RootFS.DiffIDs {
		if err := id.Validate(); err != nil {
			return nil, &FormatError{dgst, fmt.Sprintf("diff id %q: %v", id, err)}
		}
	}
	return cfg, nil
}

// cleanLayer returns the descriptor of a layer without what only we ourselves may say of it.
func cleanLayer(d ocispec.Descriptor) ocispec.Descriptor {
	c := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: blob.ForeignURLs(d)}
	for k, v := range d.Annotations {
		if strings.HasPrefix(k, "containerd.io/") || strings.HasPrefix(k, "buildkit") {
			continue
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[k] = v
	}
	return c
}
