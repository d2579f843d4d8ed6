package exporter

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	"github.com/openbuildkit/buildkit/cache"
)

// Attestation is what is said of one part of a result, in the shape of in-toto: a predicate about
// subjects. It says it itself, or is a bundle: a folder of files that do.
type Attestation struct {
	Kind gatewaypb.AttestationKind
	// Ref is the tree, and Path where in it the predicate or the folder is. Without a tree Content
	// makes the predicate, and Path is only its name. The handle stays the caller's.
	Ref  *cache.Ref
	Path string
	// Content returns a predicate that is not made before it is wanted; layers are those of the part
	// in an image, lowest first. It may be called several times, concurrently.
	Content func(ctx context.Context, layers []ocispec.Descriptor) ([]byte, error)
	// PredicateType is a url. That of a bundle, if there is one, all its files must have.
	PredicateType string
	// Subjects is what is spoken of; nothing means the part of the result itself.
	Subjects []Subject
	// Metadata holds the Attestation... keys.
	Metadata map[string][]byte
}

// Subject is what an attestation speaks of: the part of the result itself, or something else with
// a name and digests.
type Subject struct {
	Kind   gatewaypb.InTotoSubjectKind
	Name   string
	Digest []digest.Digest
}

// Keys of the metadata of attestations.
const (
	// AttestationReason is why there is one: ReasonSBOM or ReasonProvenance.
	AttestationReason = "reason"
	// AttestationSBOMCore names, without its ending, the file of a bundle that describes the result
	// itself rather than the stages or contexts that it was made of.
	AttestationSBOMCore = "sbom-core"
	// AttestationInlineOnly is true for those that are only for results which can hold them anyway.
	AttestationInlineOnly = "inline-only"

	ReasonSBOM       = "sbom"
	ReasonProvenance = "provenance"
)

// InlineOnly reports whether the attestation is not worth changing the shape of an output for.
func (a Attestation) InlineOnly() bool {
	on, err := ParseBool(AttestationInlineOnly, string(a.Metadata[AttestationInlineOnly]))
	return err == nil && on && a.Metadata[AttestationInlineOnly] != nil
}
