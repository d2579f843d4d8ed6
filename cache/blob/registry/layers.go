package registry

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// Source returns the repository as a source of layers. Progress shows in scope. A reader that is
// open counts towards the registry's limit: it must not wait for another one.
func (r *Repository) Source(scope event.Scope) blob.Source {
	return &layers{repo: r, scope: scope}
}

// layers offers the blobs of a repository. It is a pointer so that values compare.
type layers struct {
	blob.Proofs

	repo  *Repository
	scope event.Scope

	mu sync.Mutex
	// served are the hosts that were read from last, wrong those whose bytes were wrong.
	served map[digest.Digest]*host
	wrong  map[digest.Digest][]*host
	// foreign are the places outside of the registry by their URL.
	foreign map[string]*host
}

var _ blob.Fallback = (*layers)(nil)

func (l *layers) Scope() event.Scope { return l.scope }
func (l *layers) Repository() string { return l.repo.Name() }

func (l *layers) Open(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := l.repo.readable(desc, offset); err != nil {
		return nil, err
	}
	hosts, err := l.hosts(desc)
	if err != nil {
		return nil, redact(err)
	}
	limit := l.repo.client.limit(reference.Domain(l.repo.ref))
	if err := limit.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	l.serves(desc.Digest, hosts[0])
	next := func(err error) bool {
		if len(hosts) == 1 {
			return false
		}
		l.repo.client.failed(ctx, hosts[0], err)
		hosts = hosts[1:]
		l.serves(desc.Digest, hosts[0])
		return true
	}
	rd := l.repo.reader(desc, offset, func() *host { return hosts[0] }, next)
	if err := rd.start(ctx); err != nil {
		limit.Release(1)
		return nil, err
	}
	return &releaseCloser{ReadCloser: rd, release: func() { limit.Release(1) }}, nil
}

// hosts returns those that may be asked for a blob: for a foreign layer its URLs first.
func (l *layers) hosts(desc ocispec.Descriptor) ([]*host, error) {
	all, err := l.repo.hosts()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var hosts []*host
	for _, u := range blob.ForeignURLs(desc) {
		hosts = append(hosts, l.outside(all[len(all)-1], u))
	}
	hosts = append(hosts, l.repo.client.usable(all)...)
	return slices.DeleteFunc(hosts, func(h *host) bool {
		return h.mirror && slices.Contains(l.wrong[desc.Digest], h)
	}), nil
}

// outside returns the place of a URL, which is given up as soon as a mirror is. It is the same place
// each time.
func (l *layers) outside(registry *host, u string) *host {
	h := l.foreign[u]
	if h == nil {
		if l.foreign == nil {
			l.foreign = map[string]*host{}
		}
		place := *registry
		place.outside, place.mirror = u, true
		h = &place
		l.foreign[u] = h
	}
	return h
}

func (l *layers) serves(dgst digest.Digest, h *host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.served == nil {
		l.served = map[digest.Digest]*host{}
	}
	l.served[dgst] = h
}

// Fallback passes over the mirror whose bytes were wrong.
func (l *layers) Fallback(ctx context.Context, dgst digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.served[dgst]
	if h == nil || !h.mirror || slices.Contains(l.wrong[dgst], h) {
		return false
	}
	if l.wrong == nil {
		l.wrong = map[digest.Digest][]*host{}
	}
	l.wrong[dgst] = append(l.wrong[dgst], h)
	l.repo.client.failed(ctx, h, &DigestError{Object: l.repo.Name() + "@" + dgst.String(), Want: dgst})
	return true
}
