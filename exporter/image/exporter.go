package image

import (
	"context"
	"errors"
	"fmt"

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

// Factory makes exporters to the worker's images. A worker without a store of images makes the
// image, answers with its digest, and lets it go.
type Factory struct{ images *Store }

// New returns the factory.
func New(images *Store) *Factory { return &Factory{images} }

// errNoPush is the answer to push until images can be pushed.
var errNoPush = errors.New("this daemon cannot push images; export to an archive and push that")

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
	switch {
	case on[attrPush]:
		return nil, errNoPush
	case on[attrUnpack] && opt.RewriteTimestamp:
		return nil, fmt.Errorf("exporter option %q conflicts with %q", attrRewrite, attrUnpack)
	}
	return &instance{f.images, opt}, nil
}

type instance struct {
	images *Store
	opt    *Options
}

func (*instance) Name() string { return "exporting to image" }

// Export makes the image. The response describes it.
func (i *instance) Export(ctx context.Context, res *exporter.Result, env exporter.Env) (map[string]string, func(context.Context) error, error) {
	img, release, err := i.images.Commit(ctx, res, i.opt, env)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	resp, err := img.Response(i.opt.ImageNames(res))
	return resp, nil, err
}
