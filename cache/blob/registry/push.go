package registry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// Push copies the image or index desc to the repository, under the tag of its reference or, if it
// has none, by digest only. What is there already costs a request and is not sent; what another
// repository of the registry has is mounted, if from is a blob.Places that knows of it; everything
// is there before something refers to it. If several blobs fail, the error is that of the first in
// the order of the manifests. Progress shows in scope.
func (r *Repository) Push(ctx context.Context, desc ocispec.Descriptor, from content.Provider, scope event.Scope) error {
	manifests, blobs, err := collect(ctx, from, desc)
	if err != nil {
		return err
	}
	hosts, err := r.hosts()
	if err != nil {
		return redact(err)
	}
	p := &push{
		client: r.client, host: hosts[len(hosts)-1], path: reference.Path(r.ref), name: r.ref.Name(),
		from: from, scope: scope, limit: r.client.limit(reference.Domain(r.ref)),
	}
	p.places, _ = from.(blob.Places)
	ref := r.ref.Name()
	if tagged, ok := r.ref.(reference.Tagged); ok {
		p.root, p.tag = desc.Digest, tagged.Tag()
		ref += ":" + p.tag
	}
	done := scope.Step("pushing layers")
	if err := done(redact(p.blobs(ctx, blobs))); err != nil {
		return err
	}
	if p.tag != "" {
		ref += "@" + desc.Digest.String()
	}
	done = scope.Step("pushing manifest for " + ref)
	return done(redact(p.manifests(ctx, manifests)))
}

// collect lists what belongs to an image, manifests in an order in which they may be pushed.
func collect(ctx context.Context, from content.Provider, root ocispec.Descriptor) (manifests, blobs []ocispec.Descriptor, err error) {
	seen := map[digest.Digest]bool{}
	var visit func(ocispec.Descriptor) error
	visit = func(desc ocispec.Descriptor) error {
		if seen[desc.Digest] {
			return nil
		}
		seen[desc.Digest] = true
		if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
			if !images.IsNonDistributable(desc.MediaType) {
				blobs = append(blobs, desc)
			}
			return nil
		}
		children, err := images.Children(ctx, from, desc)
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := visit(child); err != nil {
				return err
			}
		}
		manifests = append(manifests, desc)
		return nil
	}
	err = visit(root)
	return manifests, blobs, err
}

// push is one image on its way.
type push struct {
	client *Client
	host   *host
	// path is the repository at the host, name the same with the registry's name in references.
	path, name string
	// root is pushed under tag, if there is one; all else by digest.
	root   digest.Digest
	tag    string
	from   content.Provider
	places blob.Places
	scope  event.Scope
	limit  *semaphore.Weighted
	// sending, if not nil, narrows the context in which bytes are sent.
	sending func(context.Context) (context.Context, func())

	mu sync.Mutex
	// closed are the repositories that blobs cannot be mounted from.
	closed map[string]bool
}

// do makes a call with the right to push.
func (p *push) do(ctx context.Context, c call) (*answer, error) {
	return p.host.do(withScopes(ctx, pushScope(p.path)), p.client.header, c)
}

// blobs sends all that are not there. The first one is asked for alone: from the answer the
// others learn how to authorize.
func (p *push) blobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	if len(blobs) == 0 {
		return nil
	}
	g := newGroup()
	p.sending = g.sending
	first := make(chan struct{})
	for i, desc := range blobs {
		g.start(ctx, i, func(ctx context.Context) error {
			asked := func() {}
			if i == 0 {
				asked = sync.OnceFunc(func() { close(first) })
				defer asked()
			} else {
				<-first
			}
			return p.blob(ctx, desc, asked)
		})
	}
	return g.wait(ctx)
}

// blob makes sure that the repository has a blob. It is opened only if it must be sent: it may
// have to be fetched for that. asked is called after the first answer.
//
// Pushes of one blob to one repository wait for each other, and those that come later find it there:
// some registries lose a blob for a moment while it is sent once more.
func (p *push) blob(ctx context.Context, desc ocispec.Descriptor, asked func()) error {
	done, err := p.client.sending.take(ctx, p.name+"@"+desc.Digest.String())
	if err != nil {
		return err
	}
	defer done()
	there, err := p.limited(ctx, func() (bool, error) {
		defer asked()
		return p.find(ctx, desc)
	})
	if err != nil {
		return err
	}
	if !there {
		if err := p.sendBlob(ctx, desc); err != nil {
			return err
		}
	}
	if p.places != nil {
		p.places.Pushed(ctx, desc.Digest, p.name)
	}
	return nil
}

// find reports whether the repository has a blob, or takes it over from another repository of the
// registry. What is more likely is tried first: one request is enough as a rule.
func (p *push) find(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	here, from := p.known(ctx, desc)
	if !here && p.mounted(ctx, desc, from) {
		return true, nil
	}
	there, err := p.exists(ctx, desc)
	if err != nil {
		if IsDenied(err) {
			err = nil // who may push need not be allowed to pull; the upload will tell
		}
		return false, err
	}
	return there || here && p.mounted(ctx, desc, from), nil
}

func (p *push) sendBlob(ctx context.Context, desc ocispec.Descriptor) error {
	ra, err := p.from.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	_, err = p.limited(ctx, func() (bool, error) { return true, p.upload(ctx, desc, ra) })
	return err
}

// limited runs fn as one of the transfers of the registry. It must not be held while a blob is
// fetched, which may take another turn at the same registry.
func (p *push) limited(ctx context.Context, fn func() (bool, error)) (bool, error) {
	if err := p.limit.Acquire(ctx, 1); err != nil {
		return false, context.Cause(ctx)
	}
	defer p.limit.Release(1)
	return fn()
}

// known tells whether a blob should be in the repository, and which others of the registry have it.
func (p *push) known(ctx context.Context, desc ocispec.Descriptor) (here bool, others []string) {
	if p.places == nil {
		return false, nil
	}
	domain := strings.TrimSuffix(p.name, p.path)
	for _, repository := range p.places.Repositories(ctx, desc.Digest) {
		if repository == p.name {
			here = true
		} else if from, ok := strings.CutPrefix(repository, domain); ok {
			others = append(others, from)
		}
	}
	return here, others
}

// mounted takes a blob over from the first repository that may be asked.
func (p *push) mounted(ctx context.Context, desc ocispec.Descriptor, from []string) bool {
	i := slices.IndexFunc(from, func(repository string) bool { return !p.isClosed(repository) })
	if i < 0 || ctx.Err() != nil {
		return false
	}
	if p.mount(ctx, desc, from[i]) {
		return true
	}
	p.close(from[i])
	return false
}

func (p *push) isClosed(from string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed[from]
}

// close notes that no blobs can be had from a repository.
func (p *push) close(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.closed = map[string]bool{}
	}
	p.closed[from] = true
}

// manifests sends manifests and indexes, one after the other.
func (p *push) manifests(ctx context.Context, manifests []ocispec.Descriptor) error {
	for _, desc := range manifests {
		object := desc.Digest.String()
		if desc.Digest == p.root {
			object = p.tag
		}
		if err := p.manifest(ctx, desc, object); err != nil {
			return err
		}
		if p.places != nil {
			p.places.Pushed(ctx, desc.Digest, p.name)
		}
	}
	return nil
}

// manifest sends a manifest under a name, unless it is there. One that refers to another is always
// sent: the answer tells whether the registry lists it, or we have to.
func (p *push) manifest(ctx context.Context, desc ocispec.Descriptor, object string) error {
	data, err := content.ReadBlob(ctx, p.from, desc)
	if err != nil {
		return err
	}
	ref, err := parseReferrer(desc, data)
	if err != nil {
		return err
	}
	u := p.host.url(p.path, "manifests/"+object)
	if ref == nil {
		there, err := p.hasManifest(ctx, call{
			method: http.MethodHead, url: u, header: http.Header{"Accept": {desc.MediaType + ", */*"}},
		}, desc.Digest)
		if err != nil || there {
			return err
		}
	}
	a, err := p.sendManifest(ctx, u, desc.MediaType, data)
	if err != nil || ref == nil || a.header.Get(subjectHeader) != "" {
		return err
	}
	return p.listReferrer(ctx, ref)
}

// sendManifest stores a manifest at u. What it refers to is there; some registries lose sight of that for
// a moment while somebody else sends it, too, or learn of it late.
func (p *push) sendManifest(ctx context.Context, u *url.URL, mediaType string, data []byte) (*answer, error) {
	for n := 1; ; n++ {
		a, err := p.do(ctx, call{
			method: http.MethodPut, url: u, header: http.Header{"Content-Type": {mediaType}},
			body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, size: int64(len(data)),
		})
		if err != nil {
			return nil, err
		}
		if a.stored() {
			return a, nil
		}
		if !a.missing || n == attempts {
			return nil, a.err
		}
		select {
		case <-time.After(backoff(n)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *push) hasManifest(ctx context.Context, c call, want digest.Digest) (bool, error) {
	a, err := p.do(ctx, c)
	if err != nil {
		if IsDenied(err) {
			err = nil // as with blobs
		}
		return false, err
	}
	switch a.code {
	case http.StatusOK:
		return a.header.Get("Docker-Content-Digest") == want.String(), nil
	case http.StatusNotFound, http.StatusForbidden, http.StatusMethodNotAllowed:
		return false, nil
	}
	return false, a.err
}
