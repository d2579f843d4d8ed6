package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxReferrers bounds the pages of one list of referrers: a registry could go on for ever.
const maxReferrers = 16 << 20

// Referrers returns the manifests in the repository whose subject is dgst, of the given artifact
// types or of any if there are none; empty if nothing refers to it. The first of the mirrors and the
// registry that has any is believed. One without the referrers API is asked for the index that clients
// then keep under the tag of the digest. Nothing says that what it returns is true: the caller fetches
// it and looks at its subject.
func (r *Repository) Referrers(ctx context.Context, dgst digest.Digest, artifactTypes ...string) ([]ocispec.Descriptor, error) {
	found, err := r.referrers(ctx, dgst, artifactTypes)
	if err != nil {
		return nil, fmt.Errorf("referrers of %s@%s: %w", r.ref.Name(), dgst, redact(err))
	}
	if len(artifactTypes) > 0 { // registries need not look at what is asked for
		found = slices.DeleteFunc(found, func(d ocispec.Descriptor) bool { return !slices.Contains(artifactTypes, d.ArtifactType) })
	}
	return found, nil
}

func (r *Repository) referrers(ctx context.Context, dgst digest.Digest, artifactTypes []string) ([]ocispec.Descriptor, error) {
	if err := dgst.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, documentTime, errDocumentTime)
	defer cancel()
	found, err := try(ctx, r, func(h *host) ([]ocispec.Descriptor, error) {
		l := lister{client: r.client, host: h, path: reference.Path(r.ref), scope: pullScope}
		found, err := l.list(ctx, dgst, artifactTypes)
		if err == nil && len(found) == 0 {
			// A mirror need not have what refers to what it mirrors.
			err = errNoReferrers
		}
		return found, err
	})
	if errors.Is(err, errNoReferrers) {
		return nil, nil
	}
	return found, err
}

var errNoReferrers = fmt.Errorf("nothing refers to it: %w", errdefs.ErrNotFound)

// lister reads the lists of referrers of a repository at a host.
type lister struct {
	client *Client
	host   *host
	path   string
	scope  func(path string) string
}

func (l *lister) get(ctx context.Context, u *url.URL) (*answer, error) {
	return l.host.document(withScopes(ctx, l.scope(l.path)), l.client.header, call{
		// Some say that there is nothing where there is something that was not asked for.
		method: http.MethodGet, url: u, header: http.Header{"Accept": {ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest}},
	})
}

// list returns what refers to dgst.
func (l *lister) list(ctx context.Context, dgst digest.Digest, artifactTypes []string) ([]ocispec.Descriptor, error) {
	found, known, err := l.api(ctx, dgst, artifactTypes)
	if err != nil || known {
		return found, err
	}
	index, err := l.tagged(ctx, referrersTag(dgst))
	if err != nil || index == nil {
		return nil, err
	}
	return index.Manifests, nil
}

// api asks for what refers to dgst, page by page; it is not known where the registry does not have
// that request (distribution specification, "Listing Referrers").
func (l *lister) api(ctx context.Context, dgst digest.Digest, artifactTypes []string) (found []ocispec.Descriptor, known bool, err error) {
	u := l.host.url(l.path, "referrers/"+dgst.String())
	if len(artifactTypes) == 1 { // the specification has no request for several
		u.RawQuery = url.Values{"artifactType": artifactTypes}.Encode()
	}
	for size := 0; u != nil; {
		a, err := l.get(ctx, u)
		if err != nil {
			return nil, false, err
		}
		switch a.code {
		case http.StatusOK:
		case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			if size == 0 {
				return nil, false, nil
			}
			return nil, false, a.err
		default:
			return nil, false, a.err
		}
		// An empty page has a size, too.
		if size += max(len(a.body), 1<<10); size > maxReferrers {
			return nil, false, &SizeError{Object: "the list"}
		}
		index, err := parseReferrers(a.body)
		if err != nil {
			return nil, false, err
		}
		found = append(found, index.Manifests...)
		if u, err = nextPage(u, a.header["Link"]); err != nil {
			return nil, false, err
		}
	}
	return found, true, nil
}

// tagged returns the index that clients keep under a tag; nil if there is none.
func (l *lister) tagged(ctx context.Context, tag string) (*ocispec.Index, error) {
	a, err := l.get(ctx, l.host.url(l.path, "manifests/"+tag))
	switch {
	case err != nil:
		return nil, err
	case a.code == http.StatusNotFound:
		return nil, nil
	case a.code != http.StatusOK:
		return nil, a.err
	}
	if kind := a.header.Get("Content-Type"); images.IsManifestType(kind) {
		return nil, fmt.Errorf("the list is of type %s", kind)
	}
	return parseReferrers(a.body)
}

// parseReferrers reads a list of referrers, or a page of one.
func parseReferrers(data []byte) (*ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("parse the list: %w", err)
	}
	if index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("the list is of type %s", printable(index.MediaType))
	}
	for _, desc := range index.Manifests {
		if err := desc.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%q: %w", printable(desc.Digest.String()), err)
		}
	}
	return &index, nil
}

// referrersTag is the tag of the index of what refers to a digest, where the registry keeps no list
// itself (distribution specification, "Referrers Tag Schema").
func referrersTag(dgst digest.Digest) string {
	algorithm, encoded := dgst.Algorithm().String(), dgst.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}
