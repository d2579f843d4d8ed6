// Package image is the source of docker-image://: the file tree of an image in a registry.
//
// A reference is resolved to the digest of a manifest or index, once per build; the manifest of
// the wanted platform and its config are read and kept for some minutes in the content store; the
// layers are not fetched: they become lazy refs, with the registry offered as their source.
// Everything that a registry sends is checked against its digest and bounded in size; a manifest
// or config in the content store is used for a repository only if it was read from that
// repository before.
//
// The package unpacks nothing (package cache does when a tree is used) and knows no HTTP (that is
// cache/blob/registry).
package image

import (
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/containerd/v2/core/images"
	ctdreference "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/worker/source"
)

// Scheme is the scheme of image references.
const Scheme = "docker-image"

// Config is what the source works with.
type Config struct {
	// Cache holds the trees, and in its content store manifests and configs.
	Cache    *cache.Manager
	Registry *registry.Client
	// Images is the worker's store of named images; nil if it has none.
	Images Images
}

// Images finds images by name, as containerd's images.Store does.
type Images interface {
	// Get returns the image of a full name with tag or digest; errdefs.ErrNotFound if there is
	// none.
	Get(ctx context.Context, name string) (images.Image, error)
}

// Source resolves and fetches images. It may be used concurrently.
type Source struct{ cfg Config }

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// Schemes returns docker-image.
func (s *Source) Schemes() []string { return []string{Scheme} }

// ResolveMode says whether the worker's own images are looked at.
type ResolveMode string

// The resolve modes.
const (
	// ResolveDefault asks the registry, and uses the worker's own if it cannot be reached.
	ResolveDefault ResolveMode = "default"
	// ResolvePull asks the registry.
	ResolvePull ResolveMode = "pull"
	// ResolveLocal uses the worker's own, and asks the registry otherwise.
	ResolveLocal ResolveMode = "local"
)

func parseMode(mode string) (ResolveMode, error) {
	switch m := ResolveMode(mode); m {
	case "":
		return ResolveDefault, nil
	case ResolveDefault, ResolvePull, ResolveLocal:
		return m, nil
	}
	return "", fmt.Errorf("invalid image resolve mode %q", mode)
}

// Identifier is a parsed docker-image:// op.
type Identifier struct {
	// Ref has a tag, a digest or both.
	Ref        reference.Named
	Platform   ocispec.Platform
	Mode       ResolveMode
	RecordType cache.RecordType
	// LayerLimit takes only so many layers, lowest first; 0 takes all.
	LayerLimit int
	// Checksum is the digest that the reference must resolve to; empty if any will do.
	Checksum digest.Digest
}

// Scheme returns docker-image.
func (id *Identifier) Scheme() string { return Scheme }

// String returns the identifier in full.
func (id *Identifier) String() string { return pb.SchemeImage + id.Ref.String() }

// Material tells of the image.
func (id *Identifier) Material(pin string) source.Material {
	return source.ImageMaterial(id.Ref.String(), id.Platform, pin, false)
}

// Parse reads the reference and the attributes image.*; others are ignored.
func (s *Source) Parse(_, ref string, attrs map[string]string, platform ocispec.Platform) (source.Identifier, error) {
	id, err := parse(ref, attrs, platform)
	if err != nil {
		return nil, err
	}
	return id, nil
}

func parse(ref string, attrs map[string]string, platform ocispec.Platform) (*Identifier, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("invalid image reference %q: %w", ref, err)
	}
	if reference.IsNameOnly(named) {
		return nil, fmt.Errorf("invalid image reference %q: %w", ref, ctdreference.ErrObjectRequired)
	}
	id := &Identifier{Ref: named, Platform: platform}
	if id.Mode, err = parseMode(attrs[pb.AttrImageResolveMode]); err != nil {
		return nil, err
	}
	if id.RecordType, err = source.ParseRecordType(attrs[pb.AttrImageRecordType]); err != nil {
		return nil, err
	}
	if v, ok := attrs[pb.AttrImageLayerLimit]; ok {
		if id.LayerLimit, err = strconv.Atoi(v); err != nil || id.LayerLimit <= 0 {
			return nil, fmt.Errorf("invalid layer limit %q", v)
		}
	}
	if v := attrs[pb.AttrImageChecksum]; v != "" {
		if id.Checksum, err = digest.Parse(v); err != nil {
			return nil, fmt.Errorf("invalid image checksum %q: %w", v, err)
		}
	}
	return id, nil
}
