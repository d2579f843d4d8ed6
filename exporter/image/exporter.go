package image

import (
	"context"
	"fmt"

	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/exporter"
)

// Type is the name of the exporter of images to where the worker keeps them.
const Type = "image"

// Attributes that only the exporter image knows.
const (
	attrPush         = "push"
	attrByDigest     = "push-by-digest"
	attrInsecure     = "registry.insecure"
	attrStore        = "store"
	attrUnpack       = "unpack"
	attrCanonical    = "name-canonical"
	attrDangling     = "dangling-name-prefix"
	attrDanglingOnly = "danging-name-empty-only" // the field's spelling
	attrIncomplete   = "unsafe-internal-store-allow-incomplete"
)

// Factory makes exporters to registries and to the worker's images. A worker without a store of
// images makes the image, pushes it if asked to, answers with its digest, and lets it go.
type Factory struct {
	images     *Store
	registries *registry.Client
}

// New returns the factory.
func New(images *Store, registries *registry.Client) *Factory { return &Factory{images, registries} }

// Resolve reads the attributes of images and of what becomes of them.
func (f *Factory) Resolve(attrs map[string]string) (exporter.Instance, error) {
	own := []string{
		attrPush, attrByDigest, attrInsecure, attrStore, attrUnpack, attrCanonical, attrDangling, attrDanglingOnly, attrIncomplete,
	}
	opt, err := ParseOptions(attrs, own...)
	if err != nil {
		return nil, err
	}
	on := map[string]bool{}
	for _, k := range own {
		if v, ok := attrs[k]; ok && k != attrDangling {
			if on[k], err = exporter.ParseBool(k, v); err != nil {
				return nil, err
			}
		}
	}
	if on[attrUnpack] && opt.RewriteTimestamp {
		return nil, fmt.Errorf("exporter option %q conflicts with %q", attrRewrite, attrUnpack)
	}
	return &instance{f, opt, on}, nil
}

type instance struct {
	*Factory
	opt *Options
	on  map[string]bool
}

func (*instance) Name() string { return "exporting to image" }

// Export makes the image. The response describes it.
func (i *instance) Export(ctx context.Context, res *exporter.Result, env exporter.Env) (map[string]string, func(context.Context) error, error) {
	img, release, err := i.images.Commit(ctx, res, i.opt, env)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	names := i.opt.ImageNames(res)
	if i.on[attrPush] {
		for _, name := range names {
			if err := i.push(ctx, name, img, env); err != nil {
				return nil, nil, fmt.Errorf("failed to push %s: %w", name, err)
			}
		}
	}
	resp, err := img.Response(names)
	return resp, nil, err
}

// push sends an image to the repository of one of its names.
func (i *instance) push(ctx context.Context, name string, img *Image, env exporter.Env) error {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	switch {
	case !i.on[attrByDigest]:
		ref = reference.TagNameOnly(ref)
	case !reference.IsNameOnly(ref):
		return fmt.Errorf("can't push tagged ref %s by digest", ref)
	}
	repo := i.registries.Repository(ref, env.Sessions, registry.Insecure(i.on[attrInsecure]))
	return repo.Push(ctx, img.Descriptor, img.Provider, env.Scope)
}
