package history

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxManifests and maxManifest bound what is kept of an image.
	maxManifests = 1000
	maxManifest  = 48 << 20
)

// AttachImage keeps what describes an image with the record: indexes, manifests, configs and attestations,
// but no layers.
func (b *Build) AttachImage(ctx context.Context, from content.Provider, desc ocispec.Descriptor) error {
	if b == nil {
		return nil
	}
	seen := map[digest.Digest]bool{}
	todo := []ocispec.Descriptor{desc}
	for len(todo) > 0 && len(seen) < maxManifests {
		d := todo[0]
		todo = todo[1:]
		if seen[d.Digest] || isLayer(d) {
			continue
		}
		seen[d.Digest] = true
		if d.Size > maxManifest {
			return fmt.Errorf("%s %s has %d bytes", d.MediaType, d.Digest, d.Size)
		}
		data, err := content.ReadBlob(ctx, from, d)
		if err != nil {
			return err
		}
		if _, err := b.Attach(d.MediaType, data, nil); err != nil {
			return err
		}
		children, err := images.Children(ctx, from, d)
		if err != nil {
			return err
		}
		todo = append(todo, children...)
	}
	return nil
}

// isLayer tells whether a blob is part of the files of an image. Attestations look like layers but
// have a type of their own.
func isLayer(d ocispec.Descriptor) bool {
	return images.IsLayerType(d.MediaType) || strings.Contains(d.MediaType, ".layer.") || strings.HasSuffix(d.MediaType, ".tar")
}
