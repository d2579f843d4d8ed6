package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/snapshot/layer"
)

// maxRetimed is how many blobs with changed times a layer keeps of each form. A build with another
// time than those before makes another one in place of the oldest.
const maxRetimed = 2

// Retime says which times in layers are to be changed.
type Retime struct {
	// Epoch takes the place of times that are later. It is in whole seconds.
	Epoch time.Time
	// Base are diff ids of the lowest layers. Those that are as told here stay as they are, up to
	// the first that is not.
	Base []digest.Digest
}

// form is the form that a layer is wanted in.
type form struct {
	blob.CompressionOpt
	// epoch is the latest time in Unix seconds that an entry may have; nil if all may stay.
	epoch *int64
}

// LayersAt is Layers with times changed; what is made is remembered as all forms are. A layer that
// cannot be changed is as in Layers, and says why.
func (r *Ref) LayersAt(ctx context.Context, opt blob.CompressionOpt, at Retime, acc Access) ([]Layer, error) {
	opt.Type = cmp.Or(opt.Type, blob.Gzip)
	chain := layersOf(r.rec)
	kept := 0
	for kept < len(chain) && kept < len(at.Base) && r.m.diffID(chain[kept]) == at.Base[kept] {
		kept++
	}
	epoch := at.Epoch.Unix()
	return r.eachLayer(ctx, chain, acc, func(ctx context.Context, i int) (Layer, error) {
		plain := form{CompressionOpt: opt}
		if i < kept {
			return r.m.layer(ctx, chain[i], plain, acc)
		}
		l, err := r.m.retimed(ctx, chain[i], form{opt, &epoch}, acc)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrLost) {
			return l, err
		}
		l, plainErr := r.m.layer(ctx, chain[i], plain, acc)
		l.Unchanged = err
		return l, plainErr
	})
}

func (m *Manager) diffID(r *record) digest.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return r.state.DiffID
}

// retimed returns a layer with times changed, in the form asked for.
func (m *Manager) retimed(ctx context.Context, r *record, want form, acc Access) (Layer, error) {
	if v, ok := m.choose(r, form{CompressionOpt: want.CompressionOpt}); ok && !v.Made {
		if _, known := blob.FromMediaType(v.Descriptor.MediaType); !known {
			return Layer{}, fmt.Errorf("unsupported media type %s", v.Descriptor.MediaType)
		}
	}
	l, err := m.layer(ctx, r, want, acc)
	l.Retimed = true
	return l, err
}

// sameEpoch reports whether two limits of times are the same.
func sameEpoch(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }

// clamped returns write with the times in the archive that it writes changed.
func clamped(write func(io.Writer) error, epoch int64) func(io.Writer) error {
	return func(w io.Writer) error {
		pr, pw := io.Pipe()
		written := make(chan error, 1)
		go func() {
			err := write(pw)
			_ = pw.CloseWithError(err)
			written <- err
		}()
		err := layer.Clamp(w, pr, time.Unix(epoch, 0).UTC())
		if err == nil {
			// What follows the end of the archive belongs to its digest.
			_, err = io.Copy(io.Discard, pr)
		}
		_ = pr.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
		// The reader's error is the writer's if that one failed first.
		if writeErr := <-written; err == nil {
			err = writeErr
		}
		return err
	}
}

// forgetOldTimes drops the oldest blobs with changed times if there are more than a layer keeps. One
// that is still on its way to a registry is found lost there, and made again.
func (m *Manager) forgetOldTimes(ctx context.Context, r *record) {
	m.mu.Lock()
	left := map[blob.Compression]int{}
	for _, v := range r.state.Blobs {
		if v.Epoch != nil {
			left[v.Compression]++
		}
	}
	var gone []digest.Digest
	blobs := slices.DeleteFunc(slices.Clone(r.state.Blobs), func(v variant) bool {
		if v.Epoch == nil || left[v.Compression] <= maxRetimed {
			return false
		}
		left[v.Compression]--
		gone = append(gone, v.Descriptor.Digest)
		m.unindexLayer(r, v)
		return true
	})
	gone = slices.DeleteFunc(gone, func(d digest.Digest) bool {
		return slices.ContainsFunc(blobs, func(v variant) bool { return v.Descriptor.Digest == d })
	})
	if len(blobs) < len(r.state.Blobs) {
		r.state.Blobs, r.size = blobs, -1
		m.put(r)
	}
	for _, d := range gone {
		delete(r.kept, d)
	}
	m.mu.Unlock()
	for _, d := range gone {
		err := m.leases.DeleteResource(ctx, leases.Lease{ID: leasePrefix + r.id}, leases.Resource{ID: d.String(), Type: "content"})
		if err != nil {
			log.G(ctx).WithError(err).Warnf("blob %s of cache record %s is kept", d, r.id)
		}
	}
	if len(gone) > 0 {
		m.tidyLater(true)
	}
}
