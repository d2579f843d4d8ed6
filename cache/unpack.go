package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// unpack makes the tree of r from a blob that is here, on the parent's, of which parent tells when it
// is there. Where the snapshots allow it that is needed only at the end.
func (m *Manager) unpack(ctx context.Context, r *record, v variant, acc Access, parent chan error) (err error) {
	key := activeKey(r.id)
	if err := m.snapshots.Remove(ctx, key); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	begun := false
	defer func() {
		if err != nil && begun {
			err = errors.Join(err, m.snapshots.Remove(context.WithoutCancel(ctx), key))
			m.tidyLater(false)
		}
	}()
	below := func() error {
		err := <-parent
		parent <- err
		return err
	}
	detacher := m.snapshots.Detacher()
	if r.parent != nil && detacher != nil {
		begun = true
		err := m.unpackAlone(ctx, r, v, acc, detacher, below)
		if !errors.Is(err, layer.ErrNeedsParent) {
			if err == nil {
				m.unpacked(r)
			}
			return err
		}
		if err := m.snapshots.Remove(ctx, key); err != nil {
			return err
		}
		begun = false
	}
	if err := below(); err != nil {
		return err
	}
	if err := m.beginOn(ctx, r, key); err != nil {
		return err
	}
	begun = true
	var applied layer.Applied
	err = m.extract(ctx, r, v, acc, func(archive io.Reader) (err error) {
		applied, err = m.apply(ctx, key, archive)
		return err
	})
	if err != nil {
		return err
	}
	if err := m.setRemovals(r, applied.Removed); err != nil {
		return err
	}
	if err := m.snapshots.Commit(ctx, r.id, key); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	m.unpacked(r)
	return nil
}

// beginOn makes the active snapshot key on the tree of r's parent.
func (m *Manager) beginOn(ctx context.Context, r *record, key string) error {
	if r.parent == nil {
		return m.snapshots.Prepare(ctx, key, "")
	}
	return m.settle(ctx, r.parent, key)
}

// apply unpacks an archive into an active snapshot.
func (m *Manager) apply(ctx context.Context, key string, archive io.Reader) (_ layer.Applied, err error) {
	dir, release, err := snapshot.MountTemp(m.snapshots.Mountable(ctx, key, false, nil))
	if err != nil {
		return layer.Applied{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	return layer.Apply(ctx, dir, archive)
}

// unpackAlone unpacks a blob and puts it on the parent's tree when below says that it is there.
func (m *Manager) unpackAlone(ctx context.Context, r *record, v variant, acc Access, d snapshot.Detacher, below func() error) error {
	key := activeKey(r.id)
	dir, xattrs, err := d.PrepareDetached(ctx, key)
	if err != nil {
		return err
	}
	var alone *layer.Detached
	err = m.extract(ctx, r, v, acc, func(archive io.Reader) (err error) {
		alone, err = layer.ApplyDetached(ctx, dir, archive, xattrs)
		return err
	})
	if err != nil {
		return err
	}
	if err := below(); err != nil {
		return err
	}
	if err := m.settle(ctx, r.parent, ""); err != nil {
		return err
	}
	if err := m.attach(ctx, r, alone); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	if err := m.setRemovals(r, alone.Removed); err != nil {
		return err
	}
	if err := d.CommitOn(ctx, r.id, key, r.parent.id); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	return nil
}

// attach completes a layer with what the parent's tree says of its folders.
func (m *Manager) attach(ctx context.Context, r *record, alone *layer.Detached) (err error) {
	if !alone.NeedsTree() {
		return nil
	}
	tree, release, err := snapshot.MountTemp(m.snapshots.Mountable(ctx, r.parent.id, true, nil))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return alone.Attach(tree)
}

// extract gives the archive of a blob to unpack, shows that, and verifies what the archive is.
func (m *Manager) extract(ctx context.Context, r *record, v variant, acc Access, unpack func(io.Reader) error) error {
	if err := m.unpacks.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer m.unpacks.Release(1)
	done := m.progress(acc, v).Step("extracting " + v.Descriptor.Digest.String())
	err := m.verified(ctx, r, v, unpack)
	if errors.Is(err, layer.ErrNeedsParent) {
		_ = done(nil) // it is begun anew
		return err
	}
	if err = done(err); err != nil {
		return fmt.Errorf("extract layer %s: %w", v.Descriptor.Digest, err)
	}
	return nil
}

func (m *Manager) verified(ctx context.Context, r *record, v variant, unpack func(io.Reader) error) error {
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
	archive := io.TeeReader(&endingReader{ctx, d}, digester.Hash())
	if err := unpack(archive); err != nil {
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

// endingReader ends with ctx: one entry of an archive can be of any size.
type endingReader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call that it came with
	r   io.Reader
}

func (r *endingReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// unpacked notes that the tree of r is here.
func (m *Manager) unpacked(r *record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.state.Tree = settled
	r.state.Boot = m.boot
	r.size = -1
	r.writes++
	m.put(r)
	m.syncLater()
}
