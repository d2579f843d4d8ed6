package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot"
)

// maxLayers is how many layers of a tree are looked after at a time, maxMade how many blobs are
// made by all builds together.
const (
	maxLayers = 8
	maxMade   = 8
)

// Layers returns the tree as blobs, lowest first, in the form that opt wants. Missing forms are
// made, several layers at a time, and remembered; a lazy blob whose form will do stays lazy. The
// blobs stay as long as the handle.
func (r *Ref) Layers(ctx context.Context, opt blob.CompressionOpt, acc Access) ([]Layer, error) {
	opt.Type = cmp.Or(opt.Type, blob.Gzip)
	chain := layersOf(r.rec)
	return r.eachLayer(ctx, chain, acc, func(ctx context.Context, i int) (Layer, error) {
		return r.m.layer(ctx, chain[i], form{CompressionOpt: opt}, acc)
	})
}

// KnownLayers returns what is known of the layers of a tree as blobs, lowest first: of each the form it came
// in, or else the first that was made of it with its own times, or else the last with others. It is nil if there
// is no such record, or if a layer has no form yet. Nothing is read, fetched or made for it.
func (m *Manager) KnownLayers(id string) []ocispec.Descriptor {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[id]
	if r == nil || r.state.Mutable || r.state.Kind == layered && r.known() == nil {
		return nil
	}
	chain := layersOf(r)
	layers := make([]ocispec.Descriptor, len(chain))
	for i, r := range chain {
		v := r.known()
		if v == nil {
			return nil
		}
		layers[i] = v.Descriptor
	}
	return layers
}

// known returns the form of a layer that KnownLayers tells; nil for none. The caller holds Manager.mu.
func (r *record) known() *variant {
	var made, retimed *variant
	for i := range r.state.Blobs {
		switch v := &r.state.Blobs[i]; {
		case !v.Made:
			return v
		case v.Epoch != nil:
			retimed = v
		case made == nil:
			made = v
		}
	}
	return cmp.Or(made, retimed)
}

// eachLayer calls layer for the position of each record, several at a time, and returns what the
// request may have.
func (r *Ref) eachLayer(ctx context.Context, chain []*record, acc Access, layer func(context.Context, int) (Layer, error)) ([]Layer, error) {
	layers := make([]Layer, len(chain))
	g, making := errgroup.WithContext(ctx)
	g.SetLimit(maxLayers)
	for i := range chain {
		g.Go(func() (err error) {
			layers[i], err = layer(making, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := r.m.proveChain(ctx, r.rec, acc, true); err != nil {
		return nil, err
	}
	return layers, nil
}

// layer returns one record as a blob.
func (m *Manager) layer(ctx context.Context, r *record, opt form, acc Access) (Layer, error) {
	// A form that is known may have gone from the disk: then it is made once more.
	for range 2 {
		if v, ok := m.choose(r, opt); ok {
			usable, err := m.usable(ctx, r, v)
			if err != nil {
				return Layer{}, err
			}
			if usable {
				return m.describeLayer(r, v, opt), nil
			}
			m.forgetBlob(r, v)
		}
		level := "default"
		if opt.Level != nil {
			level = strconv.Itoa(*opt.Level)
		}
		key := fmt.Sprintf("layer %s %s %s %t", r.id, opt.Type, level, opt.Force)
		if opt.epoch != nil {
			key += fmt.Sprintf(" %d", *opt.epoch)
		}
		err := m.share(ctx, key, acc, func(ctx context.Context, acc Access) error {
			if _, ok := m.choose(r, opt); ok {
				return nil
			}
			return m.working(r, func() error { return m.makeBlob(ctx, r, opt, acc) })
		})
		if err != nil {
			return Layer{}, err
		}
	}
	if v, ok := m.choose(r, opt); ok {
		return m.describeLayer(r, v, opt), nil
	}
	return Layer{}, m.lose(r, errors.New("its blob does not stay"))
}

// choose returns the form of a layer that will do. Unless it is to be converted, a layer that came in
// some form stays in it, and one that was made here has the form asked for: what was made for others
// before changes nothing.
func (m *Manager) choose(r *record, opt form) (variant, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var came *variant
	for i, v := range r.state.Blobs {
		if v.Compression == opt.Type && sameEpoch(v.Epoch, opt.epoch) && !v.Made {
			return v, true
		}
		if !v.Made && came == nil {
			came = &r.state.Blobs[i]
		}
	}
	if came != nil && !opt.Force && opt.epoch == nil {
		return *came, true
	}
	for _, v := range r.state.Blobs {
		if v.Compression == opt.Type && sameEpoch(v.Epoch, opt.epoch) && blob.SameLevel(opt.Type, v.Level, opt.Level) {
			return v, true
		}
	}
	return variant{}, false
}

// usable reports whether a form is here, or lazy and not made here.
func (m *Manager) usable(ctx context.Context, r *record, v variant) (bool, error) {
	if !v.Made {
		return true, nil
	}
	return m.local(ctx, r, v)
}

func (m *Manager) forgetBlob(r *record, v variant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unindexLayer(r, v)
	r.state.Blobs = slices.DeleteFunc(slices.Clone(r.state.Blobs), func(b variant) bool {
		return b.Descriptor.Digest == v.Descriptor.Digest
	})
	r.size = -1
	m.put(r)
}

func (m *Manager) describeLayer(r *record, v variant, opt form) Layer {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := Layer{Descriptor: v.Descriptor, DiffID: cmp.Or(v.DiffID, r.state.DiffID), Description: r.state.Text, CreatedAt: r.state.CreatedAt}
	if form, known := blob.FromMediaType(l.Descriptor.MediaType); known || v.Made {
		if v.Made {
			form = v.Compression
		}
		l.Descriptor.MediaType = blob.MediaType(form, opt.DockerTypes)
	}
	return l
}

// makeBlob makes a form of a layer: from another form if there is one, else from the tree.
func (m *Manager) makeBlob(ctx context.Context, r *record, opt form, acc Access) error {
	fromBlob, err := m.convertible(ctx, r)
	if err != nil {
		return err
	}
	var v variant
	if fromBlob {
		v, err = m.convert(ctx, r, opt, acc)
	} else {
		v, err = m.pack(ctx, r, opt, acc)
	}
	if err != nil {
		return fmt.Errorf("make a layer of cache record %s: %w", r.id, err)
	}
	m.noteKept(r, v.Descriptor.Digest)
	m.mu.Lock()
	r.state.Blobs = append(slices.Clip(r.state.Blobs), v)
	if !r.gone {
		m.indexLayer(r)
	}
	m.put(r)
	m.mu.Unlock()
	if v.Epoch != nil {
		m.forgetOldTimes(ctx, r)
	}
	return nil
}

// convertible reports whether there is a form that others can be made from, here or where it was
// found. Those that were made here and have gone are forgotten.
func (m *Manager) convertible(ctx context.Context, r *record) (bool, error) {
	m.mu.Lock()
	variants := slices.Clone(r.state.Blobs)
	m.mu.Unlock()
	for _, v := range variants {
		usable, err := m.usable(ctx, r, v)
		if err != nil {
			return false, err
		}
		if !usable {
			m.forgetBlob(r, v)
		} else if v.ofTree() {
			return true, nil
		}
	}
	return false, nil
}

// convert makes a form of a layer from another one, which is fetched if need be.
func (m *Manager) convert(ctx context.Context, r *record, opt form, acc Access) (variant, error) {
	from, err := m.fetch(ctx, r, acc, func() {})
	if err != nil {
		return variant{}, err
	}
	ra, err := m.content.ReaderAt(ctx, from.Descriptor)
	if err != nil {
		return variant{}, err
	}
	defer ra.Close()
	size := ra.Size()
	if opt.Type == blob.EStargz {
		size = blob.ArchiveSize(ra, size)
	}
	v, archive, err := m.compress(ctx, r, opt, func(w io.Writer) error {
		return decompress(w, io.NewSectionReader(ra, 0, size))
	})
	if err != nil {
		return variant{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if opt.epoch == nil && size == ra.Size() && archive != r.state.DiffID {
		return variant{}, fmt.Errorf("it unpacks to %s, the image says %s", archive, r.state.DiffID)
	}
	return v, nil
}

// pack makes a form of a layer from the tree.
func (m *Manager) pack(ctx context.Context, r *record, opt form, acc Access) (variant, error) {
	if err := m.realise(ctx, r, acc); err != nil {
		return variant{}, err
	}
	if err := m.settle(ctx, r, ""); err != nil {
		return variant{}, err
	}
	v, archive, err := m.compress(ctx, r, opt, func(w io.Writer) error { return m.writeDiff(ctx, r, w) })
	if err != nil {
		return variant{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if archive != r.state.DiffID {
		for _, b := range r.state.Blobs {
			m.unindexLayer(r, b)
		}
	}
	r.state.DiffID = archive
	return v, nil
}

func (m *Manager) writeDiff(ctx context.Context, r *record, w io.Writer) error {
	removed, err := m.removals(r)
	if err != nil {
		return err
	}
	err = m.snapshots.Diff(ctx, snapshot.Layer{Snapshot: r.id, Removed: removed}, w)
	if errdefs.IsNotFound(err) {
		return m.lose(r, err)
	}
	return err
}

func decompress(w io.Writer, r io.Reader) error {
	d, err := blob.NewDecompressor(r)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{d}, make([]byte, 256<<10))
	return errors.Join(err, d.Close())
}

// makePrefix begins the names of blobs while they are being made.
const makePrefix = "make-"

// compress stores what write writes, in the form of opt, as a blob under the record's lease, and
// returns the digest of what was written too.
func (m *Manager) compress(ctx context.Context, r *record, opt form, write func(io.Writer) error) (variant, digest.Digest, error) {
	if err := m.making.Acquire(ctx, 1); err != nil {
		return variant{}, "", context.Cause(ctx)
	}
	defer m.making.Release(1)
	ctx, err := m.lease(ctx, r)
	if err != nil {
		return variant{}, "", err
	}
	ref := makePrefix + r.id + "-" + newID()
	w, err := content.OpenWriter(ctx, m.content, content.WithRef(ref))
	if err != nil {
		return variant{}, "", err
	}
	defer w.Close()
	raw := digest.SHA256.Digester()
	if opt.epoch != nil {
		whole := write
		write = clamped(func(w io.Writer) error { return whole(io.MultiWriter(raw.Hash(), w)) }, *opt.epoch)
	}
	c, err := m.compressTo(w, opt, write)
	if err != nil {
		return variant{}, "", errors.Join(err, m.abort(ctx, w, ref))
	}
	st, err := w.Status()
	if err != nil {
		return variant{}, "", err
	}
	dgst := w.Digest()
	if err := w.Commit(ctx, st.Offset, dgst); err != nil && !errdefs.IsAlreadyExists(err) {
		return variant{}, "", errors.Join(err, m.abort(ctx, w, ref))
	}
	v := variant{
		Descriptor: ocispec.Descriptor{
			MediaType: blob.MediaType(opt.Type, opt.DockerTypes), Digest: dgst, Size: st.Offset, Annotations: c.Annotations(),
		},
		Compression: opt.Type, Level: opt.Level, Made: true,
	}
	archive, id := cmp.Or(c.ArchiveDigest(), dgst), cmp.Or(c.DiffID(), dgst)
	switch {
	case opt.epoch != nil:
		v.Epoch, v.DiffID, archive = opt.epoch, id, raw.Digest()
	case id != archive:
		v.DiffID = id
	}
	return v, archive, nil
}

// abort gives up a blob that is being made.
func (m *Manager) abort(ctx context.Context, w content.Writer, ref string) error {
	w.Close()
	if err := m.content.Abort(context.WithoutCancel(ctx), ref); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// compressTo writes the compressed form of what write writes to w.
func (m *Manager) compressTo(w io.Writer, opt form, write func(io.Writer) error) (*blob.Compressor, error) {
	c, err := m.compressors.New(w, opt.Type, opt.Level)
	if err != nil {
		return nil, err
	}
	err = write(c)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	return c, err
}
