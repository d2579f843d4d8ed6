// Package oci holds the exporters oci and docker: an image as an archive, in OCI's layout or with
// what `docker load` wants besides, or as blobs in a store of the client's. How the image is made
// is the business of package exporter/image.
package oci

import (
	"context"
	"errors"
	"maps"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
)

// Variant is a kind of archive, and the type of the exporter that makes it.
type Variant string

// The variants.
const (
	OCI    Variant = "oci"
	Docker Variant = "docker"
)

const attrTar = "tar"

// Factory makes exporters of one variant.
type Factory struct {
	variant  Variant
	images   *image.Store
	sessions *session.Manager
}

// New returns the factory; outputs go to the sessions of the manager.
func New(variant Variant, images *image.Store, sessions *session.Manager) *Factory {
	return &Factory{variant, images, sessions}
}

// Resolve reads tar and the attributes of images. The format of OCI has its media types in every
// version.
func (f *Factory) Resolve(attrs map[string]string, version compat.Version) (exporter.Instance, error) {
	if _, given := attrs[image.AttrOCITypes]; f.variant == OCI && !given {
		attrs = maps.Clone(attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs[image.AttrOCITypes] = "true"
	}
	opt, err := image.ParseOptions(attrs, version, attrTar)
	if err != nil {
		return nil, err
	}
	if opt.Names, err = image.NormalizeNames(opt.Names); err != nil {
		return nil, err
	}
	i := &instance{Factory: f, opt: opt, tar: true}
	if v, ok := attrs[attrTar]; ok {
		if i.tar, err = exporter.ParseBool(attrTar, v); err != nil {
			return nil, err
		}
	}
	return i, nil
}

type instance struct {
	*Factory
	opt *image.Options
	// tar is false if blobs are put into the client's store instead of an archive.
	tar bool
}

func (i *instance) Name() string { return "exporting to " + string(i.variant) + " image format" }

// Export makes the image and sends it. The response describes it.
func (i *instance) Export(ctx context.Context, res *exporter.Result, env exporter.Env) (map[string]string, error) {
	if i.variant == Docker && len(res.Refs) > 0 {
		return nil, errors.New("docker exporter does not currently support exporting manifest lists")
	}
	names, err := image.NormalizeNames(i.opt.ImageNames(res))
	if err != nil {
		return nil, err
	}
	client, err := env.Client(ctx, i.sessions)
	if err != nil {
		return nil, err
	}
	img, err := i.images.Commit(ctx, res, i.opt, env)
	if err != nil {
		return nil, err
	}
	defer img.Release()
	ctx = img.Leased(ctx)
	setCreated(img)
	resp, err := img.Response(names)
	if err != nil {
		return nil, err
	}
	if !i.tar {
		return resp, copyImage(ctx, client, img)
	}
	done := env.Scope.Step("sending tarball")
	return resp, done(i.send(ctx, client, env.ID, img, names, resp))
}

// setCreated notes on the descriptor when the image was made.
func setCreated(img *image.Image) {
	annotations := map[string]string{}
	for k, v := range img.Descriptor.Annotations {
		annotations[k] = v
	}
	if annotations[ocispec.AnnotationCreated] == "" {
		at := time.Now()
		if img.Epoch != nil {
			at = *img.Epoch
		}
		annotations[ocispec.AnnotationCreated] = at.UTC().Format(time.RFC3339)
	}
	img.Descriptor.Annotations = annotations
}

// send writes the archive. A client that has it already gets nothing.
func (i *instance) send(ctx context.Context, client *session.Caller, id int, img *image.Image, names []string, resp map[string]string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w, err := filesync.NewFileWriter(ctx, client, id, resp)
	if err != nil {
		return err
	}
	l, err := newLayout(ctx, img.Provider, img.Descriptor, names, i.variant == Docker)
	if err == nil {
		err = l.write(ctx, w)
	}
	if err != nil {
		cancel(err) // the client must not take what it got for the whole
		_ = w.Close()
		return err
	}
	return w.Close()
}
