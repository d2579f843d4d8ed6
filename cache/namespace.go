package cache

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func namespaced(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// namespacedContent does what the store below does, in our namespace.
type namespacedContent struct{ content.Store }

func (s namespacedContent) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	return s.Store.Info(namespaced(ctx), dgst)
}

func (s namespacedContent) Update(ctx context.Context, info content.Info, fieldpaths ...string) (content.Info, error) {
	return s.Store.Update(namespaced(ctx), info, fieldpaths...)
}

func (s namespacedContent) Walk(ctx context.Context, fn content.WalkFunc, filters ...string) error {
	return s.Store.Walk(namespaced(ctx), fn, filters...)
}

func (s namespacedContent) Delete(ctx context.Context, dgst digest.Digest) error {
	return s.Store.Delete(namespaced(ctx), dgst)
}

func (s namespacedContent) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	return s.Store.ListStatuses(namespaced(ctx), filters...)
}

func (s namespacedContent) Status(ctx context.Context, ref string) (content.Status, error) {
	return s.Store.Status(namespaced(ctx), ref)
}

func (s namespacedContent) Abort(ctx context.Context, ref string) error {
	return s.Store.Abort(namespaced(ctx), ref)
}

func (s namespacedContent) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	return s.Store.ReaderAt(namespaced(ctx), desc)
}

func (s namespacedContent) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(namespaced(ctx), opts...)
	if err != nil {
		return nil, err
	}
	return namespacedWriter{w}, nil
}

type namespacedWriter struct{ content.Writer }

func (w namespacedWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	return w.Writer.Commit(namespaced(ctx), size, expected, opts...)
}

// namespacedLeases does what the manager below does, in our namespace.
type namespacedLeases struct {
	leases.Manager
	created func(leases.Lease)
}

func (l namespacedLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	lease, err := l.Manager.Create(namespaced(ctx), opts...)
	if err == nil {
		l.created(lease)
	}
	return lease, err
}

func (l namespacedLeases) Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error {
	return l.Manager.Delete(namespaced(ctx), lease, opts...)
}

func (l namespacedLeases) List(ctx context.Context, filters ...string) ([]leases.Lease, error) {
	return l.Manager.List(namespaced(ctx), filters...)
}

func (l namespacedLeases) AddResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.Manager.AddResource(namespaced(ctx), lease, r)
}

func (l namespacedLeases) DeleteResource(ctx context.Context, lease leases.Lease, r leases.Resource) error {
	return l.Manager.DeleteResource(namespaced(ctx), lease, r)
}

func (l namespacedLeases) ListResources(ctx context.Context, lease leases.Lease) ([]leases.Resource, error) {
	return l.Manager.ListResources(namespaced(ctx), lease)
}
