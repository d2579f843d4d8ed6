package registry

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Referrers returns the manifests in the repository whose subject is dgst, of the given artifact
// types or of any if there are none; empty if nothing refers to it. A registry without the
// referrers API is asked for the index that clients then keep under the tag of the digest. Nothing
// says that what it returns is true: the caller fetches it and looks at its subject.
func (r *Repository) Referrers(ctx context.Context, dgst digest.Digest, artifactTypes ...string) ([]ocispec.Descriptor, error) {
	if err := dgst.Validate(); err != nil {
		return nil, fmt.Errorf("referrers of %q: %w", dgst, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, documentTime, errDocumentTime)
	defer cancel()
	hosts, err := r.hosts()
	if err != nil {
		return nil, redact(err)
	}
	fetcher, err := hosts[len(hosts)-1].resolver.Fetcher(ctx, r.ref.String())
	if err != nil {
		return nil, redact(err)
	}
	found, err := fetcher.(remotes.ReferrersFetcher).FetchReferrers(logged(ctx), dgst, remotes.WithReferrerArtifactTypes(artifactTypes...))
	if err != nil {
		return nil, fmt.Errorf("referrers of %s@%s: %w", r.ref.Name(), dgst, redact(err))
	}
	for _, desc := range found {
		if err := desc.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("referrers of %s@%s: %w", r.ref.Name(), dgst, err)
		}
	}
	return found, nil
}
