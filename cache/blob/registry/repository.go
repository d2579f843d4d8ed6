package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/session"
)

// Repository is a repository of a registry as one request may use it. It may be used
// concurrently and needs no closing.
type Repository struct {
	client *Client
	ref    reference.Named
	// hosts returns the same hosts each time, so that requests share what they learn about
	// authorization.
	hosts func() ([]*host, error)
}

// Option changes how a repository is reached.
type Option func(*options)

type options struct{ insecure bool }

// Insecure reaches the registry, if insecure is true, as its configuration would with
// HostConfig.Insecure.
func Insecure(insecure bool) Option { return func(o *options) { o.insecure = insecure } }

// documentTime bounds how long it may take to read a manifest or a config: a server that sends
// ever so slowly keeps no build waiting.
const documentTime = 5 * time.Minute

var errDocumentTime = errors.New("registry sends too slowly")

// Repository returns the repository that ref names, with a tag or digest if Resolve is to be
// called. The sessions are asked for credentials; the set may change while the repository is
// used.
func (c *Client) Repository(ref reference.Named, sessions session.Group, opts ...Option) *Repository {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	var once memo[[]*host]
	return &Repository{client: c, ref: ref, hosts: func() ([]*host, error) {
		return once.get(func() ([]*host, error) { return c.hosts(reference.Domain(ref), sessions, o) })
	}}
}

// Name returns the repository with its registry: docker.io/library/alpine.
func (r *Repository) Name() string { return r.ref.Name() }

// Resolve asks the registry which manifest or index the reference stands for. The media type and
// size are as the registry says; Fetch finds out whether they are true.
func (r *Repository) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, documentTime, errDocumentTime)
	defer cancel()
	desc, err := try(ctx, r, func(h *host) (ocispec.Descriptor, error) {
		_, desc, err := h.resolver.Resolve(logged(ctx), r.ref.String())
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := desc.Digest.Validate(); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%s: %w", r.ref, err)
		}
		if h.mirror && !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
			// A web page has a digest, too.
			return ocispec.Descriptor{}, fmt.Errorf("%s: %s answers with %s", r.ref, h.Host, printable(desc.MediaType))
		}
		return desc, nil
	})
	return desc, redact(err)
}

// FetchManifest is Fetch of a manifest or index whose media type may not be known.
func (r *Repository) FetchManifest(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		// The type chooses the endpoint; what is asked for accepts any.
		desc.MediaType = ocispec.MediaTypeImageIndex
	}
	data, err := r.Fetch(ctx, desc, limit)
	if err == nil || !isWrong(err) {
		return data, err
	}
	// The size may be what a mirror said when the name was resolved.
	size, ok := r.sizeAtOrigin(ctx, desc.Digest)
	if !ok || size == desc.Size {
		return nil, err
	}
	desc.Size = size
	return r.Fetch(ctx, desc, limit)
}

// sizeAtOrigin asks the registry itself for the size of a manifest, if there are mirrors that may
// have told a wrong one.
func (r *Repository) sizeAtOrigin(ctx context.Context, dgst digest.Digest) (int64, bool) {
	hosts, err := r.hosts()
	if err != nil || len(hosts) == 1 {
		return 0, false
	}
	_, desc, err := hosts[len(hosts)-1].resolver.Resolve(logged(ctx), r.ref.Name()+"@"+dgst.String())
	return desc.Size, err == nil
}

// Fetch reads a blob, such as a config, whole and verifies its digest. One of more than limit bytes
// is a SizeError and is not read.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	name := r.ref.Name() + "@" + desc.Digest.String()
	if desc.Size > limit {
		return nil, &SizeError{Object: name, Size: desc.Size, Max: limit}
	}
	if err := r.readable(desc, 0); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, documentTime, errDocumentTime)
	defer cancel()
	return try(ctx, r, func(h *host) ([]byte, error) {
		data, err := r.read(ctx, h, desc)
		if err != nil {
			return nil, fmt.Errorf("fetch %s: %w", name, err)
		}
		if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
			return nil, &DigestError{Object: name, Got: got, Want: desc.Digest}
		}
		return data, nil
	})
}

// read reads a blob from a host.
func (r *Repository) read(ctx context.Context, h *host, desc ocispec.Descriptor) ([]byte, error) {
	rd := r.reader(desc, 0, func() *host { return h }, nil)
	if err := rd.start(ctx); err != nil {
		return nil, err
	}
	defer rd.Close()
	return io.ReadAll(rd)
}

// readable says why a blob cannot be read from an offset on, whatever the registry has.
func (r *Repository) readable(desc ocispec.Descriptor, offset int64) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("%s: %w", r.ref.Name(), err)
	}
	if desc.Digest.Algorithm() != digest.SHA256 && !desc.Digest.Algorithm().Available() {
		return fmt.Errorf("%s: %w", desc.Digest, digest.ErrDigestUnsupported)
	}
	if desc.Size < 0 || offset < 0 || offset > desc.Size {
		return fmt.Errorf("%s@%s: no offset %d in %d bytes", r.ref.Name(), desc.Digest, offset, desc.Size)
	}
	return nil
}

// reader returns a reader of desc from offset on, not started yet. What it reads has exactly the
// size that desc says, or ends with an error. It reads from the host that from returns; next, if
// not nil, says whether from now returns another one.
func (r *Repository) reader(desc ocispec.Descriptor, offset int64, from func() *host, next func(error) bool) *reader {
	return &reader{
		name: r.ref.Name() + "@" + desc.Digest.String(), offset: offset, size: desc.Size, stall: stallTime,
		next: next, tries: func() int { return tries(from().mirror) }, auth: func() *authorizer { return from().auth },
		open: func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			return openAt(ctx, from(), r.ref.String(), desc, offset)
		},
	}
}

// openAt starts a request for desc from offset on. The request is made by the first Read.
func openAt(ctx context.Context, h *host, ref string, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	fetcher, err := h.resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	desc.URLs = nil
	if h.outside != "" {
		desc.URLs = []string{h.outside} // the fetcher asks it first, without credentials
	}
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
