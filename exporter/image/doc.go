// Package image turns the result of a build into an OCI or Docker image: layers in the form that
// is asked for, a config and a manifest for each platform, an index over several. What it makes
// is in the content store, under a lease; what becomes of it there is the business of who asked:
// the exporter image of this package pushes it to registries, the exporters oci and docker make an
// archive of it.
//
// A manifest is made from nothing but the result and the options, so that equal results give
// equal digests. Configs are kept as the frontend made them, with fields that are not known here,
// but for rootfs, history and created.
package image

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
)

// Store is where images are made. Images and Unpacker are nil for a worker that keeps no images by
// name; if Images is there, what it names is kept in Content.
type Store struct {
	Content content.Store
	Leases  leases.Manager
	// Blobs makes lazy layers local; the cache does.
	Blobs    Blobs
	Images   images.Store
	Unpacker Unpacker
}

// Blobs makes blobs local, as cache.Manager does.
type Blobs interface {
	FetchBlob(ctx context.Context, desc ocispec.Descriptor, acc cache.Access) error
}

const (
	// labelTemporary marks leases of work that is under way; see the prune of the daemon.
	labelTemporary = "buildkit/lease.temporary"
	// leasePrefix begins the ids of the leases of exports.
	leasePrefix = "export-"
	// leaseTime is beyond what any export takes. What an earlier daemon left goes with Recover.
	leaseTime = 24 * time.Hour
)

// lease makes a lease for what is written and returns its id and the function that ends it.
func (s *Store) lease(ctx context.Context) (id string, release func(), err error) {
	l, err := s.Leases.Create(ctx, leases.WithID(leasePrefix+rand.Text()), leases.WithExpiration(leaseTime),
		leases.WithLabel(labelTemporary, time.Now().UTC().Format(time.RFC3339Nano))) // empty labels are not kept
	if err != nil {
		return "", nil, fmt.Errorf("lease for an export: %w", err)
	}
	return l.ID, func() { _ = s.Leases.Delete(context.WithoutCancel(ctx), l) }, nil
}

// Recover gives up images that were being made when an earlier daemon ended. It is called before the
// first export.
func (s *Store) Recover(ctx context.Context) error {
	all, err := s.Leases.List(ctx, "id~=^"+leasePrefix)
	if err != nil {
		return fmt.Errorf("leases of earlier exports: %w", err)
	}
	for _, l := range all {
		if err := s.Leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("lease %s of an earlier export: %w", l.ID, err)
		}
	}
	return nil
}
