package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// here reports whether the tree of a record is on disk.
func (m *Manager) here(r *record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.state.Tree != none || r.twin != nil
}

// realise makes the tree of a record real, if the request may use it.
func (m *Manager) realise(ctx context.Context, r *record, acc Access) error {
	if err := m.makeTree(ctx, r, acc); err != nil {
		return err
	}
	// Not before: it may have been made meanwhile with what another request may use.
	return m.proveChain(ctx, r, acc, false)
}

// makeTree makes the tree of a record real: blobs of all lazy layers below are fetched at the same
// time, each is unpacked when its parent is.
func (m *Manager) makeTree(ctx context.Context, r *record, acc Access) error {
	if m.here(r) {
		return nil
	}
	return m.share(ctx, "tree "+r.id, acc, func(ctx context.Context, acc Access) error {
		if m.here(r) {
			return nil
		}
		return m.unpackOn(ctx, r, acc)
	})
}

// unpackOn makes the tree of r on that of its parent.
func (m *Manager) unpackOn(ctx context.Context, r *record, acc Access) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parent := make(chan error, 1)
	if r.parent == nil {
		parent <- nil
	} else {
		go func() {
			err := m.makeTree(ctx, r.parent, acc)
			if err != nil {
				cancel(err) // the blob is of no use then
			}
			parent <- err
		}()
	}
	v, err := m.fetch(ctx, r, acc)
	if err != nil {
		cancel(err)
	}
	if parentErr := <-parent; parentErr != nil {
		return parentErr
	}
	if err != nil {
		return err
	}
	err = m.unpack(ctx, r, v, acc)
	if err == nil || ctx.Err() != nil || m.intact(ctx, v) {
		return err
	}
	// The blob was damaged on disk after it had been verified. Once more from its source.
	if err := m.deleteBlob(ctx, v.Descriptor.Digest); err != nil {
		return err
	}
	if v, err = m.fetch(ctx, r, acc); err != nil {
		return err
	}
	return m.unpack(ctx, r, v, acc)
}

// intact reports whether a blob in the content store is what its digest says.
func (m *Manager) intact(ctx context.Context, v variant) bool {
	ra, err := m.content.ReaderAt(ctx, v.Descriptor)
	if err != nil {
		return false
	}
	defer ra.Close()
	verifier := v.Descriptor.Digest.Verifier()
	if _, err := io.Copy(verifier, content.NewReader(ra)); err != nil {
		return false
	}
	return verifier.Verified()
}

// deleteBlob removes a damaged blob, also from the records that share it.
func (m *Manager) deleteBlob(ctx context.Context, dgst digest.Digest) error {
	if err := m.content.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	// The file below would be taken for the blob when it is fetched again.
	if err := m.blobs.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// unpack makes the tree of r from a blob that is here. The parent's tree is.
func (m *Manager) unpack(ctx context.Context, r *record, v variant, acc Access) (err error) {
	done := m.progress(acc, v).Step("extracting " + v.Descriptor.Digest.String())
	defer func() { err = done(err) }()
	key := activeKey(r.id)
	if err := m.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if r.parent == nil {
		err = m.snapshots.Prepare(ctx, key, "")
	} else {
		err = m.settle(ctx, r.parent, key)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.snapshots.Remove(context.WithoutCancel(ctx), key))
			m.tidyLater(false)
		}
	}()
	if err := m.apply(ctx, r, v, key); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	if err := m.snapshots.Commit(ctx, r.id, key); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.state.Tree = settled
	r.state.Boot = m.boot
	r.size = -1
	r.writes++
	m.put(r)
	m.syncLater()
	return nil
}

// apply unpacks a blob into an active snapshot and verifies what it unpacks to.
func (m *Manager) apply(ctx context.Context, r *record, v variant, key string) (err error) {
	dir, release, err := snapshot.MountTemp(m.snapshots.Mountable(ctx, key, false, nil))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	ra, err := m.content.ReaderAt(ctx, v.Descriptor)
	if err != nil {
		return err
	}
	defer ra.Close()
	d, err := blob.NewDecompressor(content.NewReader(ra))
	if err != nil {
		return err
	}
	defer d.Close()
	digester := digest.SHA256.Digester()
	archive := io.TeeReader(d, digester.Hash())
	if _, err := layer.Apply(ctx, dir, archive); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return err
	}
	m.mu.Lock()
	want := r.state.DiffID
	m.mu.Unlock()
	if got := digester.Digest(); got != want {
		return fmt.Errorf("%w: it unpacks to %s, the image says %s", errdefs.ErrFailedPrecondition, got, want)
	}
	return nil
}

// progress returns where progress with a blob is shown.
func (m *Manager) progress(acc Access, v variant) event.Scope {
	if acc.Blobs != nil {
		for _, s := range acc.Blobs.Find(v.Descriptor.Digest) {
			return s.Scope()
		}
	}
	return event.Scope{}
}
