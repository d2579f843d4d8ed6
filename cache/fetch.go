package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// fetch makes sure that one of the forms of a record's layer is in the content store, under the
// record's lease, and returns it. It unpacks to the layer's own archive.
//
// Begun is called when a transfer has its turn, if there is one.
func (m *Manager) fetch(ctx context.Context, r *record, acc Access, begun func()) (variant, error) {
	m.mu.Lock()
	variants := slices.DeleteFunc(slices.Clone(r.state.Blobs), func(v variant) bool { return !v.ofTree() })
	m.mu.Unlock()
	for _, v := range variants {
		ok, err := m.local(ctx, r, v)
		if err != nil {
			return variant{}, err
		}
		if ok {
			return v, nil
		}
	}
	var errs []error
	for _, v := range variants {
		err := m.fetchVariant(ctx, r, v, acc, begun)
		if err == nil {
			return v, nil
		}
		if ctx.Err() != nil {
			return variant{}, context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return variant{}, m.lose(r, errors.New("neither a tree nor a blob is known"))
	}
	return variant{}, errors.Join(errs...)
}

// fetchVariant fetches one form of a layer, together with all who want the same blob.
func (m *Manager) fetchVariant(ctx context.Context, r *record, v variant, acc Access, begun func()) error {
	// After a crash a fetch goes on where it was only if the record that it is for is known then.
	if err := m.store.Flush(); err != nil {
		return fmt.Errorf("keep cache record %s: %w", r.id, err)
	}
	// The work may have been begun for another record with the same blob, which may have been
	// removed before this one has a lease on it: then once more.
	for range 3 {
		leased, err := m.lease(ctx, r)
		if err != nil {
			return err
		}
		if err := m.shareBlob(leased, v.Descriptor, acc, begun); err != nil {
			return err
		}
		if ok, err := m.local(ctx, r, v); err != nil || ok {
			return err
		}
	}
	return fmt.Errorf("layer %s does not stay in the content store", v.Descriptor.Digest)
}

// FetchBlob makes a blob local, which it may be already. It stays as long as the lease of ctx, or a
// record that has it. The error is ErrLost if no source has it.
func (m *Manager) FetchBlob(ctx context.Context, desc ocispec.Descriptor, acc Access) error {
	lease, leased := leases.FromContext(ctx)
	for range 3 {
		here, err := m.hasBlob(ctx, desc.Digest)
		if err != nil {
			return err
		}
		if !here {
			if err := m.shareBlob(ctx, desc, acc, func() {}); err != nil {
				return err
			}
		}
		if err := m.prove(ctx, desc, acc); err != nil {
			return err
		}
		if !leased {
			return nil
		}
		// Under the own lease too, if it was fetched under another.
		res := leases.Resource{ID: desc.Digest.String(), Type: "content"}
		if err := m.leases.AddResource(ctx, leases.Lease{ID: lease}, res); err != nil {
			return fmt.Errorf("keep layer %s: %w", desc.Digest, err)
		}
		if here, err := m.hasBlob(ctx, desc.Digest); err != nil || here {
			return err
		}
	}
	return fmt.Errorf("layer %s does not stay in the content store", desc.Digest)
}

// shareBlob fetches a blob together with all who want the same, under the lease of ctx.
func (m *Manager) shareBlob(ctx context.Context, desc ocispec.Descriptor, acc Access, begun func()) error {
	lease, leased := leases.FromContext(ctx)
	return m.shareNoting(ctx, "blob "+desc.Digest.String(), acc, begun, func(ctx context.Context, acc Access) error {
		if leased {
			ctx = leases.WithLease(ctx, lease)
		}
		return m.fetchBlob(ctx, desc, acc, begun)
	})
}

// local reports whether a blob is here, and keeps it for the record if so.
func (m *Manager) local(ctx context.Context, r *record, v variant) (bool, error) {
	dgst := v.Descriptor.Digest
	here, err := m.hasBlob(ctx, dgst)
	if err != nil || !here {
		return false, err
	}
	kept, err := m.keeps(ctx, r, dgst)
	if err != nil || kept {
		return kept, err
	}
	if _, err := m.lease(ctx, r, dgst); err != nil {
		return false, err
	}
	// It may have been collected before there was a lease on it.
	return m.hasBlob(ctx, dgst)
}

func (m *Manager) hasBlob(ctx context.Context, dgst digest.Digest) (bool, error) {
	_, err := m.content.Info(ctx, dgst)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// keeps reports whether a blob is under the record's lease.
func (m *Manager) keeps(ctx context.Context, r *record, dgst digest.Digest) (bool, error) {
	m.mu.Lock()
	leased, kept := r.leased, r.kept[dgst]
	m.mu.Unlock()
	if kept || !leased {
		return kept, nil
	}
	resources, err := m.leases.ListResources(ctx, leases.Lease{ID: leasePrefix + r.id})
	if err != nil {
		return false, err
	}
	for _, res := range resources {
		if res.ID == dgst.String() {
			m.noteKept(r, dgst)
			return true, nil
		}
	}
	return false, nil
}

func (m *Manager) noteKept(r *record, dgsts ...digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.leased = true
	r.size = -1
	if r.kept == nil {
		r.kept = map[digest.Digest]bool{}
	}
	for _, dgst := range dgsts {
		r.kept[dgst] = true
	}
}

// lease returns a context in which content belongs to the record, and makes that so for blobs
// that are here.
func (m *Manager) lease(ctx context.Context, r *record, dgsts ...digest.Digest) (context.Context, error) {
	l := leases.Lease{ID: leasePrefix + r.id}
	m.mu.Lock()
	leased := r.leased
	m.mu.Unlock()
	if leased && len(dgsts) == 0 {
		return leases.WithLease(ctx, l.ID), nil
	}
	err := m.leaseTx(ctx, func(ctx context.Context) error {
		if !leased {
			if _, err := m.leases.Create(ctx, leases.WithID(l.ID)); err != nil && !errdefs.IsAlreadyExists(err) {
				return err
			}
		}
		for _, dgst := range dgsts {
			if err := m.leases.AddResource(ctx, l, leases.Resource{ID: dgst.String(), Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep the blobs of cache record %s: %w", r.id, err)
	}
	m.noteKept(r, dgsts...)
	return leases.WithLease(ctx, l.ID), nil
}

// fetchBlob reads a blob from the first source that has it.
func (m *Manager) fetchBlob(ctx context.Context, desc ocispec.Descriptor, acc Access, begun func()) error {
	if err := m.fetches.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer m.fetches.Release(1)
	begun()
	var errs []error
	tried := map[blob.Source]bool{}
	for {
		// Asked each time: who waits for the blob changes.
		sources := slices.DeleteFunc(acc.Blobs.Find(desc.Digest), func(s blob.Source) bool { return tried[s] })
		if len(sources) == 0 {
			break
		}
		src := sources[0]
		tried[src] = true
		whole, err := blob.Transfer(ctx, m.content, desc, src)
		if err == nil {
			if whole {
				src.NoteProof(desc.Digest)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("layer %s: %w", desc.Digest, ErrLost)
	}
	if !slices.ContainsFunc(errs, func(err error) bool { return !errdefs.IsNotFound(err) }) {
		return fmt.Errorf("fetch layer %s: %w: %w", desc.Digest, ErrLost, errors.Join(errs...))
	}
	return fmt.Errorf("fetch layer %s: %w", desc.Digest, errors.Join(errs...))
}
