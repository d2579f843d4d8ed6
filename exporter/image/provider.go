package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// provider reads content, having it fetched first if it is not here.
type provider struct {
	content content.Store
	access  cache.Access
}

func (c *commit) provider() *provider { return &provider{c.store.Content, c.env.Access} }

// Info returns what is known of a blob, without labels: those are no part of an image.
func (p *provider) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	info, err := p.content.Info(ctx, dgst)
	info.Labels = nil
	return info, err
}

// ReaderAt opens a blob.
func (p *provider) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := p.content.ReaderAt(ctx, desc)
	if !errdefs.IsNotFound(err) {
		return ra, err
	}
	if err := p.fetch(ctx, desc); err != nil {
		return nil, err
	}
	return p.content.ReaderAt(ctx, desc)
}

// fetch copies a blob into the content store, from the first source that has it.
func (p *provider) fetch(ctx context.Context, desc ocispec.Descriptor) error {
	var sources []blob.Source
	if p.access.Blobs != nil {
		sources = p.access.Blobs.Find(desc.Digest)
	}
	err := fmt.Errorf("layer %s: %w", desc.Digest, cache.ErrLost)
	for _, src := range sources {
		if err = p.fetchFrom(ctx, src, desc); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (p *provider) fetchFrom(ctx context.Context, src blob.Source, desc ocispec.Descriptor) error {
	ref := "fetch-" + desc.Digest.String()
	w, err := content.OpenWriter(ctx, p.content, content.WithRef(ref), content.WithDescriptor(desc))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	rc, err := src.Open(ctx, desc, st.Offset)
	if err != nil {
		return err
	}
	defer rc.Close()
	meter := newMeter(src.Scope(), desc, st.Offset)
	if _, err := io.Copy(io.MultiWriter(w, meter), rc); err != nil {
		return fmt.Errorf("fetch layer %s: %w", desc.Digest, err)
	}
	meter.end()
	err = w.Commit(ctx, desc.Size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if errdefs.IsFailedPrecondition(err) {
		// Wrong bytes: nothing to go on with.
		err = errors.Join(err, w.Close(), p.content.Abort(ctx, ref))
	}
	return err
}

// meter shows the progress of a transfer.
type meter struct {
	scope event.Scope
	st    event.Status
	shown time.Time
}

func newMeter(scope event.Scope, desc ocispec.Descriptor, offset int64) *meter {
	start := time.Now()
	return &meter{scope: scope, st: event.Status{
		ID: desc.Digest.String(), Total: desc.Size, Current: offset, Started: &start,
	}}
}

// Write counts p.
func (m *meter) Write(p []byte) (int, error) {
	m.st.Current += int64(len(p))
	if now := time.Now(); now.Sub(m.shown) > 100*time.Millisecond {
		m.shown, m.st.Timestamp = now, now
		m.scope.Status(m.st)
	}
	return len(p), nil
}

func (m *meter) end() {
	now := time.Now()
	m.st.Timestamp, m.st.Completed = now, &now
	m.scope.Status(m.st)
}
