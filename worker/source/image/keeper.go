package image

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
)

// keepTime is how long manifests and configs are kept: long enough that a build and the next one
// after an edit read them once.
const keepTime = 5 * time.Minute

// labelTemporary marks the leases of what is kept only to save a request.
const labelTemporary = "buildkit/lease.temporary"

// keeper keeps the manifests and configs of one repository in the content store. What is there
// already counts only if a label says that it was read from this repository: knowing a digest is
// no right to the content.
type keeper struct {
	content content.Store
	leases  leases.Manager
	ref     reference.Named
}

// known returns the blob's info if it is here and came from the repository.
func (k *keeper) known(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	info, err := k.content.Info(ctx, dgst)
	if err != nil {
		return info, err
	}
	if !blob.Proved(info.Labels, k.ref.Name()) {
		return info, fmt.Errorf("%s in %s: %w", dgst, k.ref.Name(), errdefs.ErrNotFound)
	}
	return info, nil
}

// read returns a blob that is here.
func (k *keeper) read(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	info, err := k.known(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	if info.Size > limit {
		return nil, &registry.SizeError{Object: k.ref.Name() + "@" + desc.Digest.String(), Size: info.Size, Max: limit}
	}
	return content.ReadBlob(ctx, k.content, ocispec.Descriptor{Digest: desc.Digest, Size: info.Size})
}

// keep stores a blob for some minutes, or adds the repository to one that is here.
func (k *keeper) keep(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	lease, err := k.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(keepTime),
		leases.WithLabel(labelTemporary, time.Now().UTC().Format(time.RFC3339Nano)), leases.WithLabel(cache.LabelSpare, "true"))
	if err != nil {
		return fmt.Errorf("keep %s: %w", desc.Digest, err)
	}
	leased := leases.WithLease(ctx, lease.ID)
	desc.Size = int64(len(data))
	err = content.WriteBlob(leased, k.content, "image-"+desc.Digest.String(), bytes.NewReader(data), desc)
	if err == nil {
		err = blob.RecordProof(leased, k.content, desc.Digest, k.ref.Name())
	}
	if err != nil {
		_ = k.leases.Delete(context.WithoutCancel(ctx), lease)
		return fmt.Errorf("keep %s: %w", desc.Digest, err)
	}
	return nil
}
