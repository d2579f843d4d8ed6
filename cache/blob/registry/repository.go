package registry

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
)

// Repository is a repository of a registry as one request may use it. It may be used
// concurrently and needs no closing.
type Repository struct {
	client   *Client
	ref      reference.Named
	resolver remotes.Resolver
}

// Option changes how a repository is reached.
type Option func(*options)

type options struct{ insecure bool }

// Insecure reaches the registry, if insecure is true, as its configuration would with
// HostConfig.Insecure.
func Insecure(insecure bool) Option { return func(o *options) { o.insecure = insecure } }

// Repository returns the repository that ref names, with a tag or digest if Resolve is to be
// called. The sessions are asked for credentials; the set may change while the repository is
// used.
func (c *Client) Repository(ref reference.Named, sessions session.Group, opts ...Option) *Repository {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return &Repository{
		client: c,
		ref:    ref,
		resolver: docker.NewResolver(docker.ResolverOptions{
			Headers: c.header,
			Hosts:   c.hostsOnce(sessions, o),
		}),
	}
}

// hostsOnce makes the hosts of a repository once, so that its requests share what they learn
// about authorization.
func (c *Client) hostsOnce(sessions session.Group, o options) docker.RegistryHosts {
	var once memo[[]docker.RegistryHost]
	return func(name string) ([]docker.RegistryHost, error) {
		return once.get(func() ([]docker.RegistryHost, error) { return c.registryHosts(name, sessions, o) })
	}
}

// Name returns the repository with its registry: docker.io/library/alpine.
func (r *Repository) Name() string { return r.ref.Name() }

// Resolve asks the registry which manifest or index the reference stands for. The media type and
// size are as the registry says; Fetch finds out whether they are true.
func (r *Repository) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	_, desc, err := r.resolver.Resolve(logged(ctx), r.ref.String())
	if err != nil {
		return ocispec.Descriptor{}, redact(err)
	}
	if err := desc.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", r.ref, err)
	}
	return desc, nil
}

// FetchManifest is Fetch of a manifest or index whose media type may not be known.
func (r *Repository) FetchManifest(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		// The type chooses the endpoint; what is asked for accepts any.
		desc.MediaType = ocispec.MediaTypeImageIndex
	}
	return r.Fetch(ctx, desc, limit)
}

// Fetch reads a blob, such as a config, whole and verifies its digest. One of more than limit bytes
// is a SizeError and is not read.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	name := r.ref.Name() + "@" + desc.Digest.String()
	if desc.Size > limit {
		return nil, &SizeError{Object: name, Size: desc.Size, Max: limit}
	}
	rc, err := r.open(ctx, desc, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", name, err)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, &DigestError{Object: name, Got: got, Want: desc.Digest}
	}
	return data, nil
}

// Source returns the repository as a source of layers. Progress shows in scope. A reader that is
// open counts towards the registry's limit: it must not wait for another one.
func (r *Repository) Source(scope event.Scope) blob.Source {
	return &layers{repo: r, scope: scope}
}

// layers offers the blobs of a repository. It is a pointer so that values compare.
type layers struct {
	repo  *Repository
	scope event.Scope
}

func (l *layers) Scope() event.Scope { return l.scope }
func (l *layers) Repository() string { return l.repo.Name() }

func (l *layers) Open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	limit := l.repo.client.limit(reference.Domain(l.repo.ref))
	if err := limit.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	rc, err := l.repo.open(ctx, desc, offset)
	if err != nil {
		limit.Release(1)
		return nil, err
	}
	return &releaseCloser{ReadCloser: rc, release: func() { limit.Release(1) }}, nil
}

// open reads desc from offset on. What is read has exactly the size that desc says, or ends with
// an error.
func (r *Repository) open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", r.ref.Name(), err)
	}
	if desc.Digest.Algorithm() != digest.SHA256 && !desc.Digest.Algorithm().Available() {
		return nil, fmt.Errorf("%s: %w", desc.Digest, digest.ErrDigestUnsupported)
	}
	if desc.Size < 0 || offset < 0 || offset > desc.Size {
		return nil, fmt.Errorf("%s@%s: no offset %d in %d bytes", r.ref.Name(), desc.Digest, offset, desc.Size)
	}
	fetcher, err := r.resolver.Fetcher(ctx, r.ref.String())
	if err != nil {
		return nil, redact(err)
	}
	rd := &reader{
		name: r.ref.Name() + "@" + desc.Digest.String(), offset: offset, size: desc.Size, stall: stallTime,
		open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return openAt(ctx, fetcher, desc, offset)
		},
	}
	if err := rd.start(ctx); err != nil {
		return nil, err
	}
	return rd, nil
}

// openAt starts a request for desc from offset on. The request is made by the first Read.
func openAt(ctx context.Context, fetcher remotes.Fetcher, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := fetcher.Fetch(logged(ctx), desc)
	if err != nil {
		return nil, err
	}
	if offset == 0 {
		return rc, nil
	}
	seeker, ok := rc.(io.Seeker)
	if !ok {
		_ = rc.Close()
		return nil, fmt.Errorf("%s cannot be read from offset %d", desc.Digest, offset)
	}
	if _, err := seeker.Seek(offset, io.SeekStart); err != nil {
		_ = rc.Close()
		return nil, err
	}
	return rc, nil
}
