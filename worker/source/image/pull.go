package image

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
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

// pull resolves the reference and reads manifest and config of the platform.
func (p *puller) pull(ctx context.Context) (*manifest.Image, error) {
	root, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	if want := p.id.Checksum; want != "" && want != root.Digest {
		return nil, fmt.Errorf("image digest %s for %s does not match expected checksum %s", root.Digest, p.id.Ref, want)
	}
	key := fmt.Sprintf("image %s@%s %s", p.id.Ref.Name(), root.Digest, platforms.FormatAll(p.id.Platform))
	return source.Once(ctx, p.memo, key, func(ctx context.Context) (*manifest.Image, error) {
		return manifest.Select(ctx, p, root, p.id.Platform)
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

// local looks for the reference among the worker's images. A manifest that was kept for another
// build does not count, not even by its digest: whether this one may have it, the registry says.
func (p *puller) local(ctx context.Context) (ocispec.Descriptor, error) {
	if p.cfg.Images == nil {
		return ocispec.Descriptor{}, errdefs.ErrNotFound
	}
	img, err := p.cfg.Images.Get(ctx, p.id.Ref.String())
	return img.Target, err
}

// Manifest reads a manifest or index.
func (p *puller) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return p.read(ctx, desc, manifest.MaxManifest, p.repo.FetchManifest)
}

// Config reads a config.
func (p *puller) Config(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return p.read(ctx, desc, manifest.MaxConfig, p.repo.Fetch)
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
