package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
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
func (f *Factory) Resolve(attrs map[string]string, version compat.Version) (exporter.Instance, error) {
	i := &instance{Factory: f, naming: naming{store: true, danglingPrefix: attrs[attrDangling]}}
	switches := map[string]*bool{
		attrPush:         &i.push,
		attrByDigest:     &i.byDigest,
		attrInsecure:     &i.insecure,
		attrStore:        &i.store,
		attrUnpack:       &i.unpack,
		attrCanonical:    &i.canonical,
		attrDanglingOnly: &i.danglingOnly,
		attrIncomplete:   &i.incomplete,
	}
	others := []string{attrDangling}
	for k := range switches {
		others = append(others, k)
	}
	var err error
	if i.opt, err = ParseOptions(attrs, version, others...); err != nil {
		return nil, err
	}
	if _, given := attrs[attrInline]; !given {
		i.opt.Inline = true
	}
	for k, on := range switches {
		if v, ok := attrs[k]; ok {
			if *on, err = exporter.ParseBool(k, v); err != nil {
				return nil, err
			}
		}
	}
	if i.unpack && i.opt.RewriteTimestamp {
		return nil, conflict(attrRewrite, attrUnpack)
	}
	_, err = i.targets(i.opt.Names)
	return i, err
}

// instance is the exporter of one build.
type instance struct {
	*Factory
	opt *Options
	naming
	push, byDigest, insecure bool
}

func (*instance) Name() string { return "exporting to image" }

// Export makes the image, gives it its names and pushes it. The response describes it.
func (i *instance) Export(ctx context.Context, res *exporter.Result, env exporter.Env) (map[string]string, error) {
	img, err := i.images.Commit(ctx, res, i.opt, env)
	if err != nil {
		return nil, err
	}
	defer img.Release()
	names := i.opt.ImageNames(res)
	targets, err := i.targets(names)
	if err != nil {
		return nil, err
	}
	if i.push && len(targets) == 0 {
		env.Scope.Warn(event.Warning{Short: []byte("nothing is pushed: the image has no name")})
	}
	if i.images.Images != nil && i.store {
		if names, err = i.images.keep(ctx, img, names, i.naming, env); err != nil {
			return nil, err
		}
	}
	resp, err := img.Response(names)
	if err != nil {
		return nil, err
	}
	if err := env.AwaitOthers(ctx); err != nil {
		return nil, err
	}
	if err := i.pushAll(ctx, targets, img, env); err != nil {
		return nil, err
	}
	return resp, nil
}

// pushAll pushes to all registries at once, and to one registry name after name: what the first
// brings there the next need not. Each registry gets what it takes, whatever others do; the error
// is that of the first name that failed.
func (i *instance) pushAll(ctx context.Context, targets []target, img *Image, env exporter.Env) error {
	errs := make([]error, len(targets))
	registries := map[string][]int{}
	for n, t := range targets {
		host := reference.Domain(t.ref)
		registries[host] = append(registries[host], n)
	}
	var wg sync.WaitGroup
	for _, own := range registries {
		wg.Go(func() {
			for _, n := range own {
				if errs[n] = i.pushTo(ctx, targets[n], img, env); errs[n] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// target is where an image is pushed to.
type target struct {
	name string
	ref  reference.Named
}

// targets returns where to push an image of the names.
func (i *instance) targets(names []string) ([]target, error) {
	if !i.push {
		return nil, nil
	}
	var targets []target
	for _, name := range names {
		ref, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, pushError(name, err)
		}
		switch {
		case !i.byDigest:
			ref = reference.TagNameOnly(ref)
		case !reference.IsNameOnly(ref):
			return nil, pushError(name, fmt.Errorf("can't push tagged ref %s by digest", ref))
		}
		targets = append(targets, target{name, ref})
	}
	return targets, nil
}

func (i *instance) pushTo(ctx context.Context, t target, img *Image, env exporter.Env) error {
	repo := i.registries.Repository(t.ref, env.Sessions, registry.Insecure(i.insecure))
	return pushError(t.name, repo.Push(img.Leased(ctx), img.Descriptor, img.Provider, env.Scope))
}

func pushError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("failed to push %s: %w", name, err)
}
