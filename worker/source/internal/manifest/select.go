package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reader reads the documents of one image. What it returns has the digest of desc; the size of
// desc is to be believed only so far that more than the limit is an error.
type Reader interface {
	// Manifest reads a manifest or index of at most MaxManifest bytes. The media type of desc may
	// not be known.
	Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// Config reads a config of at most MaxConfig bytes.
	Config(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
}

// Select returns the image of the platform that root is, or that it names directly or through
// other indexes. A manifest at the top is taken whatever its platform.
func Select(ctx context.Context, r Reader, root ocispec.Descriptor, platform ocispec.Platform) (*Image, error) {
	sel := &selection{Reader: r, match: platforms.Only(platform)}
	img, err := sel.find(ctx, root, 0)
	if err != nil {
		return nil, err
	}
	img.Root = root
	return img, nil
}

// selection looks for the image of a platform.
type selection struct {
	Reader
	match platforms.MatchComparer
	read  int
}

// errNoMatch has the text that clients know.
var errNoMatch = fmt.Errorf("no match for platform in manifest: %w", errdefs.ErrNotFound)

// find returns the image that desc is, or the best one below it.
func (s *selection) find(ctx context.Context, desc ocispec.Descriptor, depth int) (*Image, error) {
	if s.read++; s.read > maxManifests || depth > maxDepth {
		return nil, &FormatError{desc.Digest, "too many manifests"}
	}
	if kindOf(desc.MediaType) == unsupported {
		return nil, &FormatError{desc.Digest, "unsupported media type " + desc.MediaType}
	}
	data, err := s.Manifest(ctx, desc)
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
		if err == nil {
			img.Manifest = desc
		}
		return img, err
	}
	for _, d := range s.candidates(doc.manifests) {
		img, err := s.find(ctx, d, depth+1)
		if err == nil && img.Beside == nil {
			img.Beside = doc.manifests
		}
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
func (s *selection) image(ctx context.Context, doc *document) (*Image, ocispec.Platform, error) {
	raw, err := s.Config(ctx, doc.config)
	if err != nil {
		return nil, ocispec.Platform{}, err
	}
	cfg, err := decodeConfig(doc.config.Digest, raw, len(doc.layers))
	if err != nil {
		return nil, ocispec.Platform{}, err
	}
	img := &Image{Config: raw}
	for i, l := range doc.layers {
		if !images.IsLayerType(l.MediaType) {
			return nil, ocispec.Platform{}, &FormatError{l.Digest, "unsupported media type " + l.MediaType + " of a layer"}
		}
		img.Layers = append(img.Layers, Layer{cleanLayer(l), cfg.RootFS.DiffIDs[i]})
	}
	return img, cfg.Platform, nil
}
