package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// provider reads content, having it fetched first if it is not here. It is a blob.Places.
type provider struct {
	store  *Store
	access cache.Access
}

var _ blob.Places = (*provider)(nil)

func (c *commit) provider() *provider { return &provider{c.store, c.env.Access} }

// Info returns what is known of a blob, without labels: those are no part of an image.
func (p *provider) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	info, err := p.store.Content.Info(ctx, dgst)
	info.Labels = nil
	return info, err
}

// ReaderAt opens a blob.
func (p *provider) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	// What the build names a source for is read only if that source has it, here or not.
	if p.access.Blobs == nil || len(p.access.Blobs.Find(desc.Digest)) == 0 {
		ra, err := p.store.Content.ReaderAt(ctx, desc)
		if !errdefs.IsNotFound(err) {
			return ra, err
		}
	}
	if err := p.store.Blobs.FetchBlob(ctx, desc, p.access); err != nil {
		return nil, err
	}
	return p.store.Content.ReaderAt(ctx, desc)
}

// Repositories returns where the build itself found a blob, and then where others did.
func (p *provider) Repositories(ctx context.Context, dgst digest.Digest) []string {
	var all []string
	if p.access.Blobs != nil {
		for _, src := range p.access.Blobs.Find(dgst) {
			if name := src.Repository(); name != "" {
				all = append(all, name)
			}
		}
	}
	if info, err := p.store.Content.Info(ctx, dgst); err == nil {
		all = append(all, blob.Origins(info.Labels)...)
	}
	return all
}

// Pushed records where a blob is now. That it is not here, or that the record fails, costs no more
// than a request some day.
func (p *provider) Pushed(ctx context.Context, dgst digest.Digest, repository string) {
	_ = blob.RecordOrigin(ctx, p.store.Content, dgst, repository)
}
