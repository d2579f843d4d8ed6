//go:build linux

// Package imageblob is the source of docker-image+blob:// and oci-layout+blob://: one blob of a
// repository, or of a store that the client offers, as a tree of one file.
//
// The blob goes through the content store, as layers do, so that a broken transfer is gone on with.
// It is not unpacked. A repository is asked in every build whether the build may have the blob; a
// blob of a client is found again only by what it holds, not by its digest.
package imageblob

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/tree"
)

// The schemes of single blobs.
const (
	SchemeImage  = "docker-image+blob"
	SchemeLayout = "oci-layout+blob"
)

// Config is what the source works with.
type Config struct {
	Cache    *cache.Manager
	Registry *registry.Client
	Sessions *session.Manager
}

// Source reads blobs. It may be used concurrently.
type Source struct{ cfg Config }

var _ source.Source = (*Source)(nil)

// New returns the source.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// Schemes returns docker-image+blob and oci-layout+blob.
func (s *Source) Schemes() []string { return []string{SchemeImage, SchemeLayout} }

// Identifier is a parsed op.
type Identifier struct {
	scheme string
	Ref    reference.Canonical
	// Session and Store name a store of a client; Session may be empty.
	Session, Store string
	RecordType     cache.RecordType

	file tree.File
}

// Scheme returns that of the op.
func (id *Identifier) Scheme() string { return id.scheme }

// String returns the identifier in full.
func (id *Identifier) String() string { return id.scheme + "://" + id.Ref.String() }

// Material tells of the blob.
func (id *Identifier) Material(string) source.Material {
	return source.Material{
		Kind: source.MaterialImage, Name: id.Ref.String(), Digest: id.Ref.Digest().String(), Blob: true, Layout: id.scheme == SchemeLayout,
	}
}

// Parse reads the reference and the attributes; those it does not know are ignored.
func (s *Source) Parse(scheme, ref string, attrs map[string]string, _ ocispec.Platform) (source.Identifier, error) {
	id, err := parse(scheme, ref, attrs)
	if err != nil {
		return nil, err
	}
	return id, nil
}

func parse(scheme, ref string, attrs map[string]string) (*Identifier, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("invalid blob reference %q: %w", ref, err)
	}
	canonical, ok := named.(reference.Canonical)
	if !ok {
		return nil, fmt.Errorf("blob reference %q has no digest", ref)
	}
	if _, tagged := named.(reference.Tagged); tagged {
		return nil, fmt.Errorf("blob reference %q has a tag", ref)
	}
	id := &Identifier{
		scheme: scheme, Ref: canonical,
		Session: attrs[pb.AttrOCISession], Store: attrs[pb.AttrOCIStore],
	}
	if scheme == SchemeLayout && id.Store == "" {
		return nil, fmt.Errorf("blob %q of an oci-layout: %s is required", ref, pb.AttrOCIStore)
	}
	if id.RecordType, err = source.ParseRecordType(attrs[pb.AttrImageRecordType]); err != nil {
		return nil, err
	}
	if id.file, err = tree.ParseFile(attrs); err != nil {
		return nil, err
	}
	id.file.Name = cmp.Or(id.file.Name, canonical.Digest().Encoded())
	return id, nil
}

// key identifies the tree within its repository.
func (id *Identifier) key() (string, error) {
	value, err := json.Marshal(struct {
		Repository string
		Digest     digest.Digest
		File       tree.File
	}{id.Ref.Name(), id.Ref.Digest(), id.file})
	return "blob:" + digest.FromBytes(value).String(), err
}
