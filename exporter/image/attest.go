//go:build linux

package image

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
)

const (
	artifactAttestation = "application/vnd.docker.attestation.manifest.v1+json"

	unknownPlatform = "unknown"
)

// indexed reports whether the image is an index: because it is one for several platforms, or because
// an attestation needs one.
func (c *commit) indexed(parts []*part) bool {
	if c.res.Multi() {
		return true
	}
	for _, p := range parts {
		for _, a := range c.res.Attestations[p.ID] {
			if c.opt.Inline || !a.InlineOnly() {
				return true
			}
		}
	}
	return false
}

// attest writes the statements about a platform's image and the manifest that holds them, and
// returns the entry of the index; nil if there is nothing to say.
func (c *commit) attest(ctx context.Context, p *part) (*ocispec.Descriptor, error) {
	opt := attest.Options{Access: c.env.Access, Scope: c.env.Scope}
	for _, l := range p.layers {
		opt.Layers = append(opt.Layers, l.Descriptor)
	}
	predicates, err := attest.Load(ctx, c.res.Attestations[p.ID], opt)
	if err != nil || len(predicates) == 0 {
		return nil, err
	}
	self, err := c.subjects(p)
	if err != nil {
		return nil, err
	}
	var layers []ocispec.Descriptor
	for _, pr := range predicates {
		if err := c.supplement(ctx, p, &pr); err != nil {
			return nil, err
		}
		data, err := json.Marshal(pr.Statement(self))
		if err != nil {
			return nil, fmt.Errorf("attestation %q: %w", pr.Name, err)
		}
		desc := describe(blob.MediaTypeStatement, data)
		if err := c.write(ctx, desc, data, nil); err != nil {
			return nil, err
		}
		desc.Annotations = map[string]string{blob.AnnotationPredicateType: pr.Type}
		layers = append(layers, desc)
	}
	manifest, config, err := c.attestationManifest(p, layers)
	if err != nil {
		return nil, err
	}
	if err := c.write(ctx, manifest.Config, config, nil); err != nil {
		return nil, err
	}
	data, err := encode(manifest)
	if err != nil {
		return nil, err
	}
	desc := describe(c.types.manifest, data)
	done := c.env.Scope.Step("exporting attestation manifest " + desc.Digest.String())
	if err := done(c.write(ctx, desc, data, append(layers, manifest.Config))); err != nil {
		return nil, err
	}
	desc.Platform = &ocispec.Platform{Architecture: unknownPlatform, OS: unknownPlatform}
	desc.Annotations = map[string]string{
		blob.AnnotationReferenceType:   blob.ReferenceAttestation,
		blob.AnnotationReferenceDigest: p.manifest.Digest.String(),
	}
	return &desc, nil
}

// subjects returns the image of a platform under all its names.
func (c *commit) subjects(p *part) ([]attest.Subject, error) {
	var all []attest.Subject
	for _, name := range c.opt.ImageNames(c.res) {
		url, err := attest.ImageURL(attest.TypeDocker, name, &p.Platform.Platform)
		if err != nil {
			return nil, err
		}
		all = append(all, attest.Subject{Name: url, Digest: map[string]string{
			p.manifest.Digest.Algorithm().String(): p.manifest.Digest.Encoded(),
		}})
	}
	return all, nil
}

// attestationManifest returns the manifest that holds statements and its config: an artifact about
// the image, or what clients that know no artifacts take for an image of no platform.
func (c *commit) attestationManifest(p *part, layers []ocispec.Descriptor) (*ocispec.Manifest, []byte, error) {
	m := &ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: c.types.manifest, Layers: layers}
	if c.opt.ociArtifact(c.oci) {
		config := ocispec.DescriptorEmptyJSON
		m.ArtifactType = artifactAttestation
		m.Config = config
		m.Subject = &ocispec.Descriptor{MediaType: p.manifest.MediaType, Digest: p.manifest.Digest, Size: p.manifest.Size}
		return m, config.Data, nil
	}
	config, err := json.Marshal(unknownImage(layers))
	if err != nil {
		return nil, nil, err
	}
	m.Config = describe(c.types.config, config)
	return m, config, nil
}

// unknownImage returns the config of an image of no platform.
func unknownImage(layers []ocispec.Descriptor) any {
	rootfs := ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for _, l := range layers {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.Digest)
	}
	return struct {
		Architecture string              `json:"architecture"`
		OS           string              `json:"os"`
		Config       ocispec.ImageConfig `json:"config"`
		RootFS       ocispec.RootFS      `json:"rootfs"`
	}{unknownPlatform, unknownPlatform, ocispec.ImageConfig{}, rootfs}
}

// hasAttestations reports whether anything is said of a result.
func hasAttestations(res *exporter.Result) bool {
	for _, atts := range res.Attestations {
		if len(atts) > 0 {
			return true
		}
	}
	return false
}
