package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
)

// provider reads content, having it fetched first if it is not here.
type provider struct {
	store  *Store
	access cache.Access
}

func (c *commit) provider() *provider { return &provider{c.store, c.env.Access} }

// Info returns what is known of a blob, without labels: those are no part of an image.
func (p *provider) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	info, err := p.store.Content.Info(ctx, dgst)
	info.Labels = nil
	return info, err
}

// ReaderAt opens a blob.
func (p *provider) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := p.store.Content.ReaderAt(ctx, desc)
	if !errdefs.IsNotFound(err) {
		return ra, err
	}
	if err := p.store.Blobs.FetchBlob(ctx, desc, p.access); err != nil {
		return nil, err
	}
	return p.store.Content.ReaderAt(ctx, desc)
}
