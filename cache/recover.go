package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// recoverBlobs frees what a crash has left in the content store: blobs that were being made, and
// those that were finished but no record knows of. Those that were being fetched stay, to be gone
// on with. Nothing else uses the store yet.
func (m *Manager) recoverBlobs(ctx context.Context) error {
	loose, err := m.looseResources(ctx)
	if err != nil {
		return err
	}
	for _, l := range loose {
		if l.resource.Type != "ingests" {
			continue
		}
		if err := m.content.Abort(ctx, l.resource.ID); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("give up blob %s: %w", l.resource.ID, err)
		}
	}
	if len(loose) > 0 {
		err := m.leaseTx(ctx, func(ctx context.Context) error {
			for _, l := range loose {
				if err := m.leases.DeleteResource(ctx, l.lease, l.resource); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return m.removeUnknownBlobs(ctx)
}

type leaseResource struct {
	lease    leases.Lease
	resource leases.Resource
}

// looseResources returns what is under leases of records that know nothing of it.
func (m *Manager) looseResources(ctx context.Context) ([]leaseResource, error) {
	var loose []leaseResource
	for id, r := range m.records {
		if !r.leased {
			continue
		}
		lease := leases.Lease{ID: leasePrefix + id}
		resources, err := m.leases.ListResources(ctx, lease)
		if err != nil {
			return nil, fmt.Errorf("blobs of cache record %s: %w", id, err)
		}
		for _, res := range resources {
			if !r.knows(res) {
				loose = append(loose, leaseResource{lease, res})
			}
		}
	}
	return loose, nil
}

func (r *record) knows(res leases.Resource) bool {
	if res.Type == "ingests" {
		return !strings.HasPrefix(res.ID, makePrefix)
	}
	return slices.ContainsFunc(r.state.Blobs, func(v variant) bool { return v.Descriptor.Digest.String() == res.ID })
}

// removeUnknownBlobs removes files that had been moved to their place when the transaction that
// was to tell of them did not come to its end. The collector looks for them only after it has
// removed something else.
func (m *Manager) removeUnknownBlobs(ctx context.Context) error {
	known := map[digest.Digest]bool{}
	if err := m.content.Walk(ctx, func(info content.Info) error {
		known[info.Digest] = true
		return nil
	}); err != nil {
		return err
	}
	var unknown []digest.Digest
	if err := m.blobs.Walk(ctx, func(info content.Info) error {
		if !known[info.Digest] {
			unknown = append(unknown, info.Digest)
		}
		return nil
	}); err != nil && !errors.Is(err, os.ErrNotExist) { // no blob has ever been stored
		return err
	}
	for _, dgst := range unknown {
		if err := m.blobs.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}
