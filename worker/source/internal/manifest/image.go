package manifest

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// Layer is a layer as manifest and config describe it.
type Layer struct {
	Blob   ocispec.Descriptor
	DiffID digest.Digest
}

// Image is an image without its layers' bytes. It is not changed.
type Image struct {
	// Root is the manifest or index that it was found from.
	Root ocispec.Descriptor
	// Manifest is its manifest; Beside is everything in the index where that was found, nil if it was
	// in none.
	Manifest ocispec.Descriptor
	Beside   []ocispec.Descriptor
	Config   []byte
	// Layers are the lowest first.
	Layers []Layer
}

// Limit returns the image of the first n layers, the whole for 0.
func (i *Image) Limit(n int) (*Image, error) {
	if n > len(i.Layers) {
		return nil, fmt.Errorf("layer limit %d is greater than the number of layers in the image %d", n, len(i.Layers))
	}
	if n == 0 {
		return i, nil
	}
	limited := *i
	limited.Layers = i.Layers[:n]
	return &limited, nil
}

// Offer adds src as a source of the layers.
func (i *Image) Offer(blobs *blob.Sources, src blob.Source) {
	for _, l := range i.Layers {
		blobs.Add(l.Blob.Digest, src)
	}
}

// ChainID identifies the contents of the layers one upon the other; empty if there are none.
func (i *Image) ChainID() string {
	if len(i.Layers) == 0 {
		return ""
	}
	ids := make([]digest.Digest, len(i.Layers))
	for n, l := range i.Layers {
		ids[n] = l.DiffID
	}
	return identity.ChainID(ids).String()
}

// Here returns the id of the record with the tree of the layers, if it is here and src has the
// layers too; empty if it is not here. See cache.Manager.Chain.
func (i *Image) Here(ctx context.Context, m *cache.Manager, src blob.Source) (string, error) {
	layers := make([]cache.Layer, len(i.Layers))
	for n, l := range i.Layers {
		layers[n] = cache.Layer{Descriptor: l.Blob, DiffID: l.DiffID}
	}
	own := &blob.Sources{}
	i.Offer(own, src)
	return m.Chain(ctx, layers, cache.Access{Blobs: own})
}

// Tree returns the tree of the layers, none of which is fetched; nil for none. The caller releases
// it.
func (i *Image) Tree(ctx context.Context, m *cache.Manager, desc cache.Description) (*cache.Ref, error) {
	var top *cache.Ref
	for _, l := range i.Layers {
		ref, err := m.AddBlob(ctx, top, l.Blob, l.DiffID, desc)
		if rerr := top.Release(ctx); err == nil {
			err = rerr
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Blob.Digest, err)
		}
		top = ref
	}
	return top, nil
}
