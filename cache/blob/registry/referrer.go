package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// subjectHeader is in the answer of a registry that lists what refers to the subject of a manifest.
const subjectHeader = "OCI-Subject"

// referrer is a manifest that refers to another one, its subject.
type referrer struct {
	subject digest.Digest
	// listed is the manifest as lists of referrers show it.
	listed ocispec.Descriptor
}

// parseReferrer returns what lists say of a manifest; nil if it refers to nothing.
func parseReferrer(desc ocispec.Descriptor, data []byte) (*referrer, error) {
	var m struct {
		ArtifactType string `json:"artifactType"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Subject     *ocispec.Descriptor `json:"subject"`
		Annotations map[string]string   `json:"annotations"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("parse manifest %s: %w", desc.Digest, err)
	}
	if m.Subject == nil {
		return nil, nil
	}
	if err := m.Subject.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("subject of manifest %s: %w", desc.Digest, err)
	}
	if m.ArtifactType == "" {
		m.ArtifactType = m.Config.MediaType
	}
	return &referrer{subject: m.Subject.Digest, listed: ocispec.Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size,
		ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}}, nil
}

// listReferrer adds a manifest to the index of what refers to its subject, which clients keep where
// the registry does not (distribution specification, "Pushing Manifests with Subject"). The index is
// read, changed and written: of two daemons that do so at the same time, one can lose its entry.
func (p *push) listReferrer(ctx context.Context, ref *referrer) error {
	turn := p.client.semaphore(p.client.listing, p.host.Host, 1)
	if err := turn.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer turn.Release(1)
	tag := referrersTag(ref.subject)
	l := lister{client: p.client, host: p.host, path: p.path, scope: pushScope}
	index, err := l.tagged(ctx, tag)
	if err != nil {
		return fmt.Errorf("referrers of %s@%s: %w", p.name, ref.subject, err)
	}
	if index == nil {
		index = &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	}
	if slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == ref.listed.Digest }) {
		return nil
	}
	index.MediaType = ocispec.MediaTypeImageIndex
	index.Manifests = append(index.Manifests, ref.listed)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if size := int64(len(data)); size > docker.MaxManifestSize {
		return &SizeError{Object: "the list of referrers of " + p.name + "@" + ref.subject.String(), Size: size, Max: docker.MaxManifestSize}
	}
	_, err = p.sendManifest(ctx, p.host.url(p.path, "manifests/"+tag), index.MediaType, data)
	return err
}
