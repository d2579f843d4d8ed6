package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/worker/source"
)

// puller reads the metadata of one image for one build.
type puller struct {
	id   *Identifier
	cfg  *Config
	memo *source.Memo
	repo *registry.Repository
	kept *keeper
}

func (s *Source) puller(id *Identifier, env source.Env) *puller {
	return &puller{
		id: id, cfg: &s.cfg, memo: env.Memo,
		repo: s.cfg.Registry.Repository(id.Ref, env.Sessions),
		kept: &keeper{content: s.cfg.Cache.Content(), leases: s.cfg.Cache.Leases(), ref: id.Ref},
	}
}

// pulled is an image without its layers' bytes. It is not changed.
type pulled struct {
	root      ocispec.Descriptor
	rawConfig []byte
	layers    []ocispec.Descriptor
	diffIDs   []digest.Digest
}

// pull resolves the reference and reads manifest and config of the platform.
func (p *puller) pull(ctx context.Context) (*pulled, error) {
	root, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if want := p.id.Checksum; want != "" && want != root.Digest {
		return nil, fmt.Errorf("image digest %s for %s does not match expected checksum %s", root.Digest, p.id.Ref, want)
	}
	key := fmt.Sprintf("image %s@%s %s", p.id.Ref.Name(), root.Digest, platforms.FormatAll(p.id.Platform))
	return source.Once(ctx, p.memo, key, func(ctx context.Context) (*pulled, error) {
		sel := &selection{puller: p, match: platforms.Only(p.id.Platform)}
		img, err := sel.find(ctx, root, 0)
		if err != nil {
			return nil, err
		}
		img.root = root
		return img, nil
	})
}

// resolve returns what the reference stands for, asking once per build.
func (p *puller) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	byDigest := func(dgst digest.Digest) string { return fmt.Sprintf("image %s@%s", p.id.Ref.Name(), dgst) }
	if canonical, ok := p.id.Ref.(reference.Canonical); ok {
		return source.Once(ctx, p.memo, byDigest(canonical.Digest()), p.ask)
	}
	key := fmt.Sprintf("image %s %s", p.id.Ref, p.id.Mode)
	desc, err := source.Once(ctx, p.memo, key, p.ask)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	// The same name with the digest that was just found needs no further request.
	return source.Once(ctx, p.memo, byDigest(desc.Digest), func(context.Context) (ocispec.Descriptor, error) {
		return desc, nil
	})
}

// ask asks the registry or the worker's own images, as the mode says.
func (p *puller) ask(ctx context.Context) (ocispec.Descriptor, error) {
	if p.id.Mode == ResolveLocal {
		if desc, err := p.local(ctx); err == nil {
			return desc, nil
		}
	}
	desc, err := p.repo.Resolve(ctx)
	if err == nil || p.id.Mode == ResolvePull || ctx.Err() != nil {
		return desc, err
	}
	// An answer of the registry holds; only a registry that gave none is replaced.
	if errdefs.IsNotFound(err) || registry.IsDenied(err) {
		return ocispec.Descriptor{}, err
	}
	if local, lerr := p.local(ctx); lerr == nil {
		return local, nil
	}
	return ocispec.Descriptor{}, err
}

// local looks for the reference among what is here.
func (p *puller) local(ctx context.Context) (ocispec.Descriptor, error) {
	if p.cfg.Images != nil {
		img, err := p.cfg.Images.Get(ctx, p.id.Ref.String())
		if err == nil {
			return img.Target, nil
		}
	}
	canonical, ok := p.id.Ref.(reference.Canonical)
	if !ok {
		return ocispec.Descriptor{}, errdefs.ErrNotFound
	}
	return p.kept.lookup(ctx, canonical.Digest())
}

// fetch is a method of a repository that reads something whole.
type fetch func(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error)

// read returns a manifest or config, with fetch if it is not here.
func (p *puller) read(ctx context.Context, desc ocispec.Descriptor, limit int64, fetch fetch) ([]byte, error) {
	if data, err := p.kept.read(ctx, desc, limit); err == nil {
		return data, nil
	}
	data, err := fetch(ctx, desc, limit)
	if err != nil {
		return nil, err
	}
	return data, p.kept.keep(ctx, desc, data)
}

// selection looks for the image of a platform.
type selection struct {
	*puller
	match platforms.MatchComparer
	read  int
}

// errNoMatch has the text that clients know.
var errNoMatch = fmt.Errorf("no match for platform in manifest: %w", errdefs.ErrNotFound)

// find returns the image that desc is, or the best one below it. A manifest at the top is taken
// whatever its platform.
func (s *selection) find(ctx context.Context, desc ocispec.Descriptor, depth int) (*pulled, error) {
	if s.read++; s.read > maxManifests || depth > maxDepth {
		return nil, &FormatError{desc.Digest, "too many manifests"}
	}
	if kindOf(desc.MediaType) == unsupported {
		return nil, &FormatError{desc.Digest, "unsupported media type " + desc.MediaType}
	}
	data, err := s.puller.read(ctx, desc, maxManifest, s.repo.FetchManifest)
	if err != nil {
		return nil, err
	}
	doc, err := decode(desc.Digest, desc.MediaType, data)
	if err != nil {
		return nil, err
	}
	if !doc.index {
		img, platform, err := s.image(ctx, doc)
		if err == nil && depth > 0 && desc.Platform == nil && !s.match.Match(platforms.Normalize(platform)) {
			err = errNoMatch
		}
		return img, err
	}
	for _, d := range s.candidates(doc.manifests) {
		img, err := s.find(ctx, d, depth+1)
		if err == nil || !errors.Is(err, errNoMatch) {
			return img, err
		}
	}
	return nil, errNoMatch
}

// candidates returns the manifests that may be for the platform, best first; those that do not
// tell their platform are last.
func (s *selection) candidates(all []ocispec.Descriptor) []ocispec.Descriptor {
	var known, untold []ocispec.Descriptor
	for _, d := range all {
		switch {
		case kindOf(d.MediaType) == unsupported:
		case d.Platform == nil:
			untold = append(untold, d)
		case s.match.Match(platforms.Normalize(*d.Platform)):
			known = append(known, d)
		}
	}
	slices.SortStableFunc(known, func(a, b ocispec.Descriptor) int {
		pa, pb := platforms.Normalize(*a.Platform), platforms.Normalize(*b.Platform)
		switch {
		case s.match.Less(pa, pb):
			return -1
		case s.match.Less(pb, pa):
			return 1
		}
		return 0
	})
	return append(known, untold...)
}

// image reads the config of a manifest.
func (s *selection) image(ctx context.Context, doc *document) (*pulled, ocispec.Platform, error) {
	raw, err := s.puller.read(ctx, doc.config, maxConfig, s.repo.Fetch)
	if err != nil {
		return nil, ocispec.Platform{}, err
	}
	cfg, err := decodeConfig(doc.config.Digest, raw, len(doc.layers))
	if err != nil {
		return nil, ocispec.Platform{}, err
	}
	img := &pulled{rawConfig: raw, diffIDs: cfg.RootFS.DiffIDs}
	for _, l := range doc.layers {
		if !images.IsLayerType(l.MediaType) {
			return nil, ocispec.Platform{}, &FormatError{l.Digest, "unsupported media type " + l.MediaType + " of a layer"}
		}
		img.layers = append(img.layers, cleanLayer(l))
	}
	return img, cfg.Platform, nil
}
