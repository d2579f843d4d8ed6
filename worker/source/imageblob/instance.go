//go:build linux

package imageblob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
	"github.com/openbuildkit/buildkit/worker/source/ocilayout"
)

const (
	// labelTemporary marks the leases of what is kept only until its tree is made, leaseTime is
	// how long one outlives a daemon that was killed.
	labelTemporary = "buildkit/lease.temporary"
	leaseTime      = time.Hour
	// buffer is how much of a blob is in memory at a time, in bytes.
	buffer = 128 << 10
)

// instance is a blob in one build.
type instance struct {
	src *Source
	id  *Identifier
	env source.Env
	// desc describes the blob once it was found.
	desc ocispec.Descriptor
	from blob.Source
	// find asks the place for the blob.
	find func(ctx context.Context) (ocispec.Descriptor, error)
}

// Instance prepares a blob for one build.
func (s *Source) Instance(id source.Identifier, env source.Env) (source.Instance, error) {
	b, ok := id.(*Identifier)
	if !ok {
		return nil, fmt.Errorf("%s is no blob", id)
	}
	i := &instance{src: s, id: b, env: env}
	if b.scheme == SchemeLayout {
		store := ocilayout.NewStore(s.cfg.Sessions, b.Session, b.Store, env)
		i.from = store
		i.find = func(ctx context.Context) (ocispec.Descriptor, error) {
			size, err := store.Size(ctx, b.Ref.Digest())
			return ocispec.Descriptor{Digest: b.Ref.Digest(), Size: size}, err
		}
		return i, nil
	}
	repo := s.cfg.Registry.Repository(b.Ref, env.Sessions)
	i.from = repo.Source(env.Scope)
	i.find = func(ctx context.Context) (ocispec.Descriptor, error) {
		return source.Once(ctx, env.Memo, "blob "+b.Ref.String(), repo.Resolve)
	}
	return i, nil
}

// Key asks the place whether it has the blob for this build.
func (i *instance) Key(ctx context.Context, _ int) (source.Key, bool, error) {
	done := i.env.Scope.Step("resolve " + i.id.Ref.String())
	desc, err := i.find(ctx)
	if err := done(err); err != nil {
		return source.Key{}, false, err
	}
	if got := desc.Digest; got != i.id.Ref.Digest() {
		return source.Key{}, false, &registry.DigestError{Object: i.id.Ref.String(), Got: got, Want: i.id.Ref.Digest()}
	}
	i.desc = ocispec.Descriptor{MediaType: "application/octet-stream", Digest: desc.Digest, Size: desc.Size}
	value, err := i.id.key()
	return source.Key{
		Value: value, Pin: desc.Digest.String(), Session: i.id.scheme == SchemeLayout,
	}, true, err
}

// Fetch makes the tree.
func (i *instance) Fetch(ctx context.Context) (ref *cache.Ref, err error) {
	m := i.src.cfg.Cache
	lease, err := m.Leases().Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime),
		leases.WithLabel(labelTemporary, time.Now().UTC().Format(time.RFC3339Nano)))
	if err != nil {
		return nil, fmt.Errorf("keep blob %s: %w", i.desc.Digest, err)
	}
	defer func() { err = errors.Join(err, m.Leases().Delete(context.WithoutCancel(ctx), lease)) }()
	blobs := &blob.Sources{}
	blobs.Add(i.desc.Digest, i.from)
	acc := cache.Access{Sessions: i.env.Sessions, Blobs: blobs}
	if err := m.FetchBlob(leases.WithLease(ctx, lease.ID), i.desc, acc); err != nil {
		return nil, fmt.Errorf("blob %s: %w", i.id.Ref, err)
	}
	ra, err := m.Content().ReaderAt(ctx, i.desc)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", i.id.Ref, err)
	}
	defer ra.Close()
	desc := cache.Description{Type: i.id.RecordType, Text: "blob " + i.id.Ref.String()}
	ref, err = tree.New(ctx, m, acc, desc, func(dir string) error {
		return i.id.file.Write(dir, time.Unix(0, 0), func(w io.Writer) error {
			return copyTo(w, &reader{ctx, content.NewReader(ra)})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", i.id.Ref, err)
	}
	return ref, nil
}

// copyTo copies through a buffer of ours, however the two could do it themselves.
func copyTo(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, buffer))
	return err
}

// reader ends with ctx.
type reader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call that it came with
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
