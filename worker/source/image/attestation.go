package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	gatewaypb "github.com/openbuildkit/buildkit/api/gateway"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
)

const (
	// maxSignatures bounds how many signatures of one manifest are read, maxChain the bytes of all
	// documents together: they go into one message.
	maxSignatures = 16
	maxChain      = 12 << 20
)

// signatureTypes are the artifacts that are signatures: bundles of sigstore, and what cosign made
// before them.
var signatureTypes = []string{
	"application/vnd.dev.sigstore.bundle.v0.3+json",
	"application/vnd.dev.cosign.artifact.sig.v1+json",
}

// ResolveAttestations returns what is said of an image: its index and manifest, the manifest of its
// attestations, the signatures of that (or of the image, if there is none), and the statements of
// the given predicate types. Nothing of it is verified but that each document has its digest.
func (s *Source) ResolveAttestations(ctx context.Context, op *pb.SourceOp, platform ocispec.Platform, mode string, types []string, env source.Env) (*gatewaypb.AttestationChain, error) {
	p, err := s.pullerOf(op, platform, mode, env)
	if err != nil {
		return nil, err
	}
	img, err := p.pull(ctx)
	if err != nil {
		return nil, err
	}
	c := &chain{puller: p, msg: &gatewaypb.AttestationChain{
		Root: img.Root.Digest.String(), ImageManifest: img.Manifest.Digest.String(), Blobs: map[string]*gatewaypb.Blob{},
	}}
	for _, d := range []ocispec.Descriptor{img.Root, img.Manifest} {
		if _, err := c.document(ctx, d); err != nil {
			return nil, err
		}
	}
	signed := img.Root
	for _, d := range img.Beside {
		if d.Annotations[blob.AnnotationReferenceType] == blob.ReferenceAttestation && d.Annotations[blob.AnnotationReferenceDigest] == img.Manifest.Digest.String() {
			signed = d
			if err := c.attestations(ctx, d, types); err != nil {
				return nil, err
			}
			break
		}
	}
	return c.msg, c.signatures(ctx, signed.Digest)
}

// chain is what was found.
type chain struct {
	*puller
	msg  *gatewaypb.AttestationChain
	size int64
}

// add adds a document.
func (c *chain) add(desc ocispec.Descriptor, data []byte) error {
	if c.msg.Blobs[desc.Digest.String()] != nil {
		return nil
	}
	if c.size += int64(len(data)); c.size > maxChain {
		return fmt.Errorf("attestations of %s take more than %d bytes", c.id.Ref, maxChain)
	}
	c.msg.Blobs[desc.Digest.String()] = &gatewaypb.Blob{
		Descriptor_: &gatewaypb.Descriptor{
			MediaType: desc.MediaType, Digest: desc.Digest.String(), Size: int64(len(data)), Annotations: desc.Annotations,
		},
		Data: data,
	}
	return nil
}

// document adds a manifest or index.
func (c *chain) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	data, err := c.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	return data, c.add(desc, data)
}

// artifact adds a manifest and, of the blobs that it lists, those that want picks.
func (c *chain) artifact(ctx context.Context, desc ocispec.Descriptor, want func(ocispec.Descriptor) bool) (*ocispec.Manifest, error) {
	data, err := c.document(ctx, desc)
	if err != nil {
		return nil, err
	}
	m := &ocispec.Manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, &manifest.FormatError{Digest: desc.Digest, Reason: err.Error()}
	}
	for _, l := range m.Layers {
		if !want(l) {
			continue
		}
		if err := l.Digest.Validate(); err != nil {
			return nil, &manifest.FormatError{Digest: desc.Digest, Reason: err.Error()}
		}
		data, err := c.repo.Fetch(ctx, l, maxChain-c.size)
		if err != nil {
			return nil, err
		}
		if err := c.add(l, data); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// attestations adds the manifest of attestations and the statements of the predicate types.
func (c *chain) attestations(ctx context.Context, desc ocispec.Descriptor, types []string) error {
	c.msg.AttestationManifest = desc.Digest.String()
	_, err := c.artifact(ctx, desc, func(l ocispec.Descriptor) bool {
		return slices.Contains(types, l.Annotations[blob.AnnotationPredicateType])
	})
	return err
}

// signatures adds the signatures of a manifest.
func (c *chain) signatures(ctx context.Context, dgst digest.Digest) error {
	found, err := c.repo.Referrers(ctx, dgst, signatureTypes...)
	if err != nil {
		return err
	}
	if len(found) > maxSignatures {
		return fmt.Errorf("%s has more than %d signatures", dgst, maxSignatures)
	}
	for _, desc := range found {
		m, err := c.artifact(ctx, desc, func(ocispec.Descriptor) bool { return true })
		if err != nil {
			return err
		}
		// A registry, or whoever wrote the list, may name anything.
		if m.Subject == nil || m.Subject.Digest != dgst {
			return &manifest.FormatError{Digest: desc.Digest, Reason: "it is listed as a signature of " + dgst.String() + " and is none"}
		}
		c.msg.SignatureManifests = append(c.msg.SignatureManifests, desc.Digest.String())
	}
	return nil
}
