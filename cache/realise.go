package cache

import (
	"context"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
)

// here reports whether the tree of a record is on disk.
func (m *Manager) here(r *record) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.state.Tree != none || r.twin != nil
}

// realise makes the tree of a record real, if the request may use it.
func (m *Manager) realise(ctx context.Context, r *record, acc Access) error {
	if err := m.makeTree(ctx, r, acc, func() {}); err != nil {
		return err
	}
	// Not before: it may have been made meanwhile with what another request may use.
	return m.proveChain(ctx, r, acc, false)
}

// makeTree makes the tree of a record real: blobs of all lazy layers below are fetched, the lowest
// first, each is unpacked when it is here, and they are put together from below. It calls begun when
// the fetch of the record's own blob has begun, or will not.
func (m *Manager) makeTree(ctx context.Context, r *record, acc Access, begun func()) error {
	if m.here(r) {
		begun()
		return nil
	}
	return m.shareNoting(ctx, "tree "+r.id, acc, begun, func(ctx context.Context, acc Access) error {
		defer begun()
		if m.here(r) {
			return nil
		}
		return m.working(r, func() error {
			if r.state.Kind != layered {
				return m.makeJoined(ctx, r, acc)
			}
			return m.unpackOn(ctx, r, acc, begun)
		})
	})
}

// unpackOn makes the tree of r on that of its parent.
func (m *Manager) unpackOn(ctx context.Context, r *record, acc Access, begun func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parent := make(chan error, 1)
	if r.parent == nil {
		parent <- nil
	} else {
		below := make(chan struct{})
		go func() {
			err := m.makeTree(ctx, r.parent, acc, sync.OnceFunc(func() { close(below) }))
			if err != nil {
				cancel(err) // the blob is of no use then
			}
			parent <- err
		}()
		select {
		case <-below:
		case <-ctx.Done():
		}
	}
	err := m.fetchAndUnpack(ctx, r, acc, begun, parent)
	if err != nil {
		cancel(err)
		// Not before the parent has ended: what it makes may be removed otherwise.
		if parentErr := <-parent; parentErr != nil {
			return parentErr
		}
	}
	return err
}

// fetchAndUnpack makes the tree of r once its parent's is there, of which parent tells; it leaves in
// parent what it takes from it.
func (m *Manager) fetchAndUnpack(ctx context.Context, r *record, acc Access, begun func(), parent chan error) error {
	v, err := m.fetch(ctx, r, acc, begun)
	begun()
	if err != nil {
		return err
	}
	err = m.unpack(ctx, r, v, acc, parent)
	if err == nil || ctx.Err() != nil || m.intact(ctx, v) {
		return err
	}
	// The blob was damaged on disk after it had been verified. Once more from its source.
	if err := m.deleteBlob(ctx, v.Descriptor.Digest); err != nil {
		return err
	}
	if v, err = m.fetch(ctx, r, acc, begun); err != nil {
		return err
	}
	return m.unpack(ctx, r, v, acc, parent)
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

// progress returns where progress with a blob is shown.
func (m *Manager) progress(acc Access, v variant) event.Scope {
	if acc.Blobs != nil {
		for _, s := range acc.Blobs.Find(v.Descriptor.Digest) {
			return s.Scope()
		}
	}
	return event.Scope{}
}
