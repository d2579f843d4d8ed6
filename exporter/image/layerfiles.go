//go:build linux

package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter/attest"
)

// supplement adds to the bill of materials of an image what only the image has.
func (c *commit) supplement(ctx context.Context, p *part, pr *attest.Predicate) error {
	if !pr.IsCore() {
		return nil
	}
	err := pr.Supplement("buildkit-"+c.env.Version, func(files map[string]bool) (map[string]digest.Digest, error) {
		return layersOf(ctx, c.provider(), p, files)
	})
	if err != nil {
		return fmt.Errorf("attestation %q: %w", pr.Name, err)
	}
	return nil
}

// layersOf returns the topmost layer that each of some files is in. Layers are read from the top
// until all files are found.
func layersOf(ctx context.Context, from content.Provider, p *part, files map[string]bool) (map[string]digest.Digest, error) {
	left := maps.Clone(files)
	found := map[string]digest.Digest{}
	for i := len(p.layers) - 1; i >= 0 && len(left) > 0; i-- {
		layer := p.layers[i].Descriptor
		err := eachFile(ctx, from, layer, func(name string) bool {
			if left[name] {
				found[name] = layer.Digest
				delete(left, name)
			}
			return len(left) > 0
		})
		if err != nil {
			return nil, fmt.Errorf("files of layer %s: %w", layer.Digest, err)
		}
	}
	return found, nil
}

// eachFile calls fn with the clean absolute path of each file of a layer until it returns false.
func eachFile(ctx context.Context, from content.Provider, layer ocispec.Descriptor, fn func(name string) bool) error {
	ra, err := from.ReaderAt(ctx, layer)
	if err != nil {
		return err
	}
	defer ra.Close()
	r, err := blob.NewDecompressor(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil {
		return err
	}
	defer r.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if h.Typeflag != tar.TypeDir && !fn(path.Clean("/"+h.Name)) {
			return nil
		}
	}
}
