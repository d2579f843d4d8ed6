package cache

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/cache/blob"
)

// Who names a digest must not be given the content for that: it may be here because somebody else
// may read it. So before a layer that is here is used for a request that names a source for it,
// that source has to show that it has the layer too: it was fetched from there, as a label of the
// blob says, or bytes at places that nobody can foresee are the same.
//
// A request that names no source did not come to the layer by its digest, but through a result
// that is its own.

const (
	// wholeSize is up to which size a blob is compared as a whole.
	wholeSize = 128 << 10
	// probes is how many pieces of probeSize are compared of larger ones.
	probes    = 2
	probeSize = 32 << 10
	// proving is how many layers are compared at a time.
	proving = 4
)

// proveChain proves a record and those below it, as far as the request names sources for them.
// all looks at every record, otherwise the first one without a source is the end: what was made
// from trees that were proved needs no proof.
func (m *Manager) proveChain(ctx context.Context, r *record, acc Access, all bool) error {
	if acc.Blobs == nil {
		return nil
	}
	var descs []ocispec.Descriptor
	seen := map[*record]bool{}
	todo := []*record{r}
	if all {
		todo = layersOf(r)
	}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[at] {
			continue
		}
		seen[at] = true
		v, named := m.named(at, acc)
		if named {
			if err := m.bring(ctx, at, v, acc); err != nil {
				return err
			}
			descs = append(descs, v.Descriptor)
		}
		// A tree that is made of others was made without looking at them.
		if !all && (named || at.state.Kind != layered) {
			todo = append(todo, at.below()...)
		}
	}
	return m.proveAll(ctx, descs, acc)
}

// named returns the form of a layer that the request names a source for.
func (m *Manager) named(r *record, acc Access) (variant, bool) {
	m.mu.Lock()
	variants := r.state.Blobs
	m.mu.Unlock()
	for _, v := range variants {
		if len(acc.Blobs.Find(v.Descriptor.Digest)) > 0 {
			return v, true
		}
	}
	return variant{}, false
}

// bring fetches the blob of a record whose tree is here without it, to have something to compare.
func (m *Manager) bring(ctx context.Context, r *record, v variant, acc Access) error {
	if !m.here(r) {
		return nil
	}
	for _, src := range acc.Blobs.Find(v.Descriptor.Digest) {
		if src.HasProved(v.Descriptor.Digest) {
			return nil
		}
	}
	ok, err := m.local(ctx, r, v)
	if err != nil || ok {
		return err
	}
	return m.fetchVariant(ctx, r, v, acc, func() {})
}

func (m *Manager) proveAll(ctx context.Context, descs []ocispec.Descriptor, acc Access) error {
	if len(descs) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(proving)
	for _, desc := range descs {
		if known(desc.Digest, acc) {
			continue
		}
		g.Go(func() error { return m.prove(ctx, desc, acc) })
	}
	return g.Wait()
}

// known reports whether it is in memory that one of the sources has the blob.
func known(dgst digest.Digest, acc Access) bool {
	for _, src := range acc.Blobs.Find(dgst) {
		if src.HasProved(dgst) {
			return true
		}
	}
	return false
}

// prove makes sure that a source of the request has a blob that is here. It is not an error if the
// blob is not, or if no source is named.
func (m *Manager) prove(ctx context.Context, desc ocispec.Descriptor, acc Access) error {
	if acc.Blobs == nil {
		return nil
	}
	sources := acc.Blobs.Find(desc.Digest)
	if len(sources) == 0 || known(desc.Digest, acc) {
		return nil
	}
	info, err := m.content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, src := range sources {
		if blob.Proved(info.Labels, src.Repository()) {
			src.NoteProof(desc.Digest)
			return nil
		}
	}
	var errs []error
	for _, src := range sources {
		err := m.compareAny(ctx, desc, src)
		if err == nil {
			return m.held(ctx, info, src)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	return fmt.Errorf("layer %s: %w", desc.Digest, err)
}

// held notes that a source has a blob that is here.
func (m *Manager) held(ctx context.Context, info content.Info, src blob.Source) error {
	src.NoteProof(info.Digest)
	err := blob.RecordProof(ctx, m.content, info.Digest, src.Repository())
	if errdefs.IsNotFound(err) {
		return nil // it has gone meanwhile, and with it what there was to prove
	}
	return err
}

// errDiffers says that a source does not have what is here.
var errDiffers = errors.New("the source sends other bytes than it should")

// compareAny is compare with all that a source may read from, until one has what is here.
func (m *Manager) compareAny(ctx context.Context, desc ocispec.Descriptor, src blob.Source) error {
	for {
		err := m.compare(ctx, desc, src)
		if !errors.Is(err, errDiffers) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		if other, ok := src.(blob.Fallback); ok && other.Fallback(ctx, desc.Digest) {
			continue
		}
		if b, ok := src.(blob.Blamer); ok {
			err = b.Blame(desc.Digest, err)
		}
		return err
	}
}

// compare compares pieces of a blob that is here with what a source has.
func (m *Manager) compare(ctx context.Context, desc ocispec.Descriptor, src blob.Source) error {
	ra, err := m.content.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if desc.Size != ra.Size() {
		return fmt.Errorf("%w: %d bytes are %d", errDiffers, ra.Size(), desc.Size)
	}
	if ra.Size() <= wholeSize {
		return comparePiece(ctx, desc, src, ra, 0, ra.Size())
	}
	for range probes {
		at, err := rand.Int(rand.Reader, big.NewInt(ra.Size()-probeSize+1))
		if err != nil {
			return err
		}
		if err := comparePiece(ctx, desc, src, ra, at.Int64(), probeSize); err != nil {
			return err
		}
	}
	return nil
}

func comparePiece(ctx context.Context, desc ocispec.Descriptor, src blob.Source, ra io.ReaderAt, at, n int64) error {
	want := make([]byte, n)
	if _, err := ra.ReadAt(want, at); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	rc, err := src.Open(ctx, desc, at)
	if err != nil {
		return err
	}
	defer rc.Close()
	got := make([]byte, n)
	if _, err := io.ReadFull(rc, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errDiffers
	}
	return nil
}

// Chain returns the id of the record that has the tree of the layers, lowest first, if that is here
// and the request may use it; empty otherwise. It fetches no layer; what is here and was not read
// from a source of the request before is compared with that. Of each layer the descriptor and the
// diffID count.
func (m *Manager) Chain(ctx context.Context, layers []Layer, acc Access) (id string, err error) {
	var descs []ocispec.Descriptor
	for _, l := range layers {
		descs = append(descs, l.Descriptor)
	}
	if err := m.proveAll(ctx, descs, acc); err != nil {
		return "", err
	}
	m.mu.Lock()
	var top *record
	for _, l := range layers {
		if top = m.layers[keyOf(top, l.DiffID, l.Descriptor.Digest)]; top == nil {
			break
		}
		id = top.id
	}
	m.mu.Unlock()
	if top == nil || !m.here(top) {
		return "", nil
	}
	return id, nil
}
