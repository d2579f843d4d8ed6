package registry

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
)

// Push copies the image or index desc to the repository, under the tag of its reference or, if it
// has none, by digest only. What is there already is not sent; everything is there before
// something refers to it. Progress shows in scope.
func (r *Repository) Push(ctx context.Context, desc ocispec.Descriptor, from content.Provider, scope event.Scope) error {
	ref := r.ref.Name()
	if tagged, ok := r.ref.(reference.Tagged); ok {
		ref += ":" + tagged.Tag() + "@" + desc.Digest.String()
	}
	pusher, err := r.resolver.Pusher(ctx, ref)
	if err != nil {
		return err
	}
	manifests, blobs, err := collect(ctx, from, desc)
	if err != nil {
		return err
	}
	p := &push{repo: r, pusher: pusher, from: from}
	done := scope.Step("pushing layers")
	if err := done(redact(p.blobs(ctx, blobs))); err != nil {
		return err
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
	repo   *Repository
	pusher remotes.Pusher
	from   content.Provider
}

func (p *push) blobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(p.repo.client.cfg.MaxConcurrency)
	for _, desc := range blobs {
		eg.Go(func() error { return p.push(ctx, desc) })
	}
	return eg.Wait()
}

// push sends what is not there. A blob is opened only then: it may have to be fetched first.
func (p *push) push(ctx context.Context, desc ocispec.Descriptor) error {
	w, err := p.pusher.Push(logged(ctx), desc)
	if err != nil {
		return ignoreExisting(err)
	}
	defer w.Close()
	ra, err := p.from.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := ignoreExisting(content.Copy(ctx, w, content.NewReader(ra), desc.Size, desc.Digest)); err != nil {
		return fmt.Errorf("push %s: %w", desc.Digest, err)
	}
	return nil
}

func (p *push) manifests(ctx context.Context, manifests []ocispec.Descriptor) error {
	for _, desc := range manifests {
		if err := p.push(ctx, desc); err != nil {
			return err
		}
	}
	return nil
}

func ignoreExisting(err error) error {
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}
