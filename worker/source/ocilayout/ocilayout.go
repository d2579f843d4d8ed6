// Package ocilayout is the source of oci-layout://: the file tree of an image in an OCI layout, or
// another content store, that the client offers over its session.
//
// A reference names the digest of a manifest or index; its name is only shown. Manifests and
// configs are read at once and checked against their digests; the layers become lazy refs, with
// the client's store as their source. The client is not trusted: what it sends is bounded, and
// layers that are here already serve it only if its store has them too.
package ocilayout

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/worker/source"
)

// Scheme is the scheme of images in OCI layouts.
const Scheme = "oci-layout"

// Config is what the source works with.
type Config struct {
	Cache    *cache.Manager
	Sessions *session.Manager
}

// Source reads images from stores of clients. It may be used concurrently.
type Source struct{ cfg Config }

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// Schemes returns oci-layout.
func (s *Source) Schemes() []string { return []string{Scheme} }

// Identifier is a parsed oci-layout:// op.
type Identifier struct {
	Ref      reference.Canonical
	Platform ocispec.Platform
	// Session is the session that has the store; empty for any of the build.
	Session string
	// Store names the store among those of the session.
	Store string
	// LayerLimit takes only so many layers, lowest first; 0 takes all.
	LayerLimit int
}

// Scheme returns oci-layout.
func (id *Identifier) Scheme() string { return Scheme }

// String returns the identifier in full.
func (id *Identifier) String() string { return pb.SchemeOCILayout + id.Ref.String() }

// Material tells of the image.
func (id *Identifier) Material(pin string) source.Material {
	return source.ImageMaterial(id.Ref.String(), id.Platform, pin, true)
}

// Parse reads the reference and the attributes oci.*; others are ignored.
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
		return nil, fmt.Errorf("invalid oci-layout reference %q: %w", ref, err)
	}
	canonical, ok := named.(reference.Canonical)
	if !ok {
		return nil, fmt.Errorf("oci-layout reference %q has no digest", ref)
	}
	id := &Identifier{
		Ref: canonical, Platform: platform,
		Session: attrs[pb.AttrOCISession], Store: attrs[pb.AttrOCIStore],
	}
	if id.Store == "" {
		// As it was written: the normal form would not name what the client has named.
		name, _, _ := strings.Cut(ref, "@")
		id.Store = strings.TrimSuffix(name, tagSuffix(named))
	}
	if v, ok := attrs[pb.AttrOCILayerLimit]; ok {
		if id.LayerLimit, err = strconv.Atoi(v); err != nil || id.LayerLimit <= 0 {
			return nil, fmt.Errorf("invalid layer limit %q", v)
		}
	}
	return id, nil
}

func tagSuffix(named reference.Named) string {
	if tagged, ok := named.(reference.Tagged); ok {
		return ":" + tagged.Tag()
	}
	return ""
}
