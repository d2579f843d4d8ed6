//go:build linux

package image_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/attest"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
)

// said is an attestation that says what is given.
func said(predicate string, meta map[string][]byte) exporter.Attestation {
	return exporter.Attestation{
		Path: "said.json", PredicateType: "https://example.org/said", Metadata: meta,
		Content: func(context.Context, []ocispec.Descriptor) ([]byte, error) { return []byte(predicate), nil },
	}
}

var inlineOnly = map[string][]byte{exporter.AttestationInlineOnly: []byte("true")}

// made is an image that was made, and how to read what belongs to it.
type made struct {
	*image.Image
	t *testing.T
}

func commit(t *testing.T, b *exportertest.Bench, version compat.Version, attrs map[string]string, res *exporter.Result) made {
	t.Helper()
	store := &image.Store{Content: b.Cache.Content(), Leases: b.Cache.Leases(), Blobs: b.Cache}
	opt, err := image.ParseOptions(attrs, version)
	require.NoError(t, err)
	img, err := store.Commit(t.Context(), res, opt, b.Env(0))
	require.NoError(t, err)
	t.Cleanup(img.Release)
	return made{img, t}
}

func (m made) read(desc ocispec.Descriptor, v any) []byte {
	m.t.Helper()
	data, err := content.ReadBlob(m.t.Context(), m.Provider, desc)
	require.NoError(m.t, err)
	require.Equal(m.t, desc.Digest, digest.FromBytes(data))
	require.NoError(m.t, json.Unmarshal(data, v))
	return data
}

func TestAttestationsAreInTheIndex(t *testing.T) {
	b := exportertest.New(t, false)
	res := &exporter.Result{Ref: oneFile(t, b), Attestations: map[string][]exporter.Attestation{
		"linux/amd64": {said(`{"a": 1}`, nil), said(`{"a": 2}`, inlineOnly)},
	}}
	plain := commit(t, b, compat.Current, nil, &exporter.Result{Ref: res.Ref})
	for name, tc := range map[string]struct {
		version  compat.Version
		attrs    map[string]string
		artifact bool
		types    string
	}{
		"artifact":     {version: compat.Current, artifact: true, types: "oci"},
		"image":        {version: compat.Current, attrs: map[string]string{"oci-artifact": "false"}, types: "oci"},
		"docker types": {version: compat.Current, attrs: map[string]string{"oci-mediatypes": "false"}, types: "docker"},
		"old version":  {version: compat.V20, types: "oci"},
	} {
		t.Run(name, func(t *testing.T) {
			attrs := map[string]string{image.AttrName: "example.org/x:1,y"}
			for k, v := range tc.attrs {
				attrs[k] = v
			}
			m := commit(t, b, tc.version, attrs, res)
			require.Nil(t, m.Config, "an index has no config")
			var index ocispec.Index
			require.Contains(t, string(m.read(m.Descriptor, &index)), "\n  ")
			require.Len(t, index.Manifests, 2)
			img, att := index.Manifests[0], index.Manifests[1]
			require.Contains(t, img.MediaType, tc.types)
			if tc.types == "oci" {
				require.Equal(t, plain.Descriptor.Digest, img.Digest, "the image is what it is without")
			}
			require.Equal(t, img.MediaType, att.MediaType)
			require.Equal(t, &ocispec.Platform{OS: "unknown", Architecture: "unknown"}, att.Platform)
			require.Equal(t, map[string]string{
				"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": img.Digest.String(),
			}, att.Annotations)

			var manifest ocispec.Manifest
			m.read(att, &manifest)
			var ids []digest.Digest
			for i, l := range manifest.Layers {
				require.Equal(t, "application/vnd.in-toto+json", l.MediaType)
				require.Equal(t, map[string]string{"in-toto.io/predicate-type": "https://example.org/said"}, l.Annotations)
				var s attest.Statement
				m.read(l, &s)
				require.JSONEq(t, []string{`{"a":1}`, `{"a":2}`}[i], string(s.Predicate))
				require.Equal(t, []attest.Subject{
					{Name: "pkg:docker/example.org/x@1?platform=linux%2Famd64", Digest: map[string]string{"sha256": img.Digest.Encoded()}},
					{Name: "pkg:docker/y@latest?platform=linux%2Famd64", Digest: map[string]string{"sha256": img.Digest.Encoded()}},
				}, s.Subject)
				ids = append(ids, l.Digest)
			}
			require.Len(t, ids, 2, "where there is an index, all are in it")
			if tc.artifact {
				require.Equal(t, "application/vnd.docker.attestation.manifest.v1+json", manifest.ArtifactType)
				require.Equal(t, ocispec.DescriptorEmptyJSON, manifest.Config)
				require.Equal(t, &ocispec.Descriptor{MediaType: img.MediaType, Digest: img.Digest, Size: img.Size}, manifest.Subject)
				m.read(manifest.Config, new(struct{}))
				return
			}
			require.Empty(t, manifest.ArtifactType)
			require.Nil(t, manifest.Subject)
			var config ocispec.Image
			m.read(manifest.Config, &config)
			require.Equal(t, "unknown", config.OS)
			require.Equal(t, "unknown", config.Architecture)
			require.Equal(t, ids, config.RootFS.DiffIDs)
		})
	}
}

func TestWhatIsOnlyForIndexesMakesNone(t *testing.T) {
	b := exportertest.New(t, false)
	res := &exporter.Result{Ref: oneFile(t, b), Attestations: map[string][]exporter.Attestation{"linux/amd64": {said(`{}`, inlineOnly)}}}
	m := commit(t, b, compat.Current, nil, res)
	require.Equal(t, ocispec.MediaTypeImageManifest, m.Descriptor.MediaType)
	m = commit(t, b, compat.Current, map[string]string{"attestation-inline": "true"}, res)
	require.Equal(t, ocispec.MediaTypeImageIndex, m.Descriptor.MediaType)

	resp, err := b.Export(factory(b), nil, res, 0)
	require.NoError(t, err)
	require.NotContains(t, resp, exporter.KeyConfigDigest, "the exporter image wants them")
	resp, err = b.Export(factory(b), map[string]string{"attestation-inline": "false"}, res, 0)
	require.NoError(t, err)
	require.Contains(t, resp, exporter.KeyConfigDigest)
}

func TestEveryPlatformHasItsAttestationsAfterAllImages(t *testing.T) {
	b := exportertest.New(t, false)
	res := &exporter.Result{
		Refs: map[string]*cache.Ref{"linux/amd64": oneFile(t, b), "linux/arm64": nil},
		Metadata: map[string][]byte{exporter.KeyPlatforms: []byte(`{"Platforms":[
			{"ID":"linux/arm64","Platform":{"os":"linux","architecture":"arm64"}},
			{"ID":"linux/amd64","Platform":{"os":"linux","architecture":"amd64"}}]}`)},
		Attestations: map[string][]exporter.Attestation{"linux/amd64": {said(`{"of":"amd64"}`, nil)}, "linux/arm64": {said(`{"of":"arm64"}`, nil)}},
	}
	m := commit(t, b, compat.Current, nil, res)
	var index ocispec.Index
	m.read(m.Descriptor, &index)
	require.Len(t, index.Manifests, 4)
	for i, arch := range []string{"arm64", "amd64"} {
		require.Equal(t, arch, index.Manifests[i].Platform.Architecture)
		att := index.Manifests[2+i]
		require.Equal(t, index.Manifests[i].Digest.String(), att.Annotations["vnd.docker.reference.digest"])
		var manifest ocispec.Manifest
		m.read(att, &manifest)
		var s attest.Statement
		m.read(manifest.Layers[0], &s)
		require.JSONEq(t, `{"of":"`+arch+`"}`, string(s.Predicate))
		require.Empty(t, s.Subject, "an image without a name")
	}
	require.Len(t, b.Completed(), 1+2*2+2+1)
	require.True(t, strings.HasPrefix(b.Completed()[5], "exporting attestation manifest sha256:"), b.Completed())
}

func TestAttestationsArePushed(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{})
	b := exportertest.New(t, false)
	res := &exporter.Result{Ref: oneFile(t, b), Attestations: map[string][]exporter.Attestation{"linux/amd64": {said(`{}`, inlineOnly)}}}
	resp, err := b.Export(factory(b), map[string]string{image.AttrName: s.Addr + "/a/b:1", "push": "true"}, res, 0)
	require.NoError(t, err)
	n, err := name.ParseReference(s.Addr + "/a/b:1")
	require.NoError(t, err)
	index, err := remote.Index(n)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	got, err := index.Digest()
	require.NoError(t, err)
	require.Equal(t, resp[exporter.KeyDigest], got.String())
}

func TestFilesOfABillOfMaterialsHaveTheirLayers(t *testing.T) {
	b := exportertest.New(t, false)
	lower := b.Tree(nil, "", func(dir string) {
		require.NoError(t, os.WriteFile(dir+"/low", nil, 0o644))
		require.NoError(t, os.WriteFile(dir+"/both", nil, 0o644))
	})
	ref := b.Tree(lower, "", func(dir string) { require.NoError(t, os.WriteFile(dir+"/both", []byte("new"), 0o644)) })
	core := said(`{"spdxVersion":"SPDX-2.3","files":[{"fileName":"/both"},{"fileName":"/low"},{"fileName":"/absent"}]}`, map[string][]byte{
		exporter.AttestationReason: []byte(exporter.ReasonSBOM), exporter.AttestationSBOMCore: []byte("sbom"),
	})
	core.Path, core.PredicateType = "sbom.spdx.json", attest.PredicateSPDX
	other := core
	other.Path = "sbom-build.spdx.json"
	for _, compression := range []string{"gzip", "zstd", "uncompressed"} {
		m := commit(t, b, compat.Current, map[string]string{"compression": compression}, &exporter.Result{
			Ref: ref, Attestations: map[string][]exporter.Attestation{"linux/amd64": {core, other}},
		})
		var index ocispec.Index
		m.read(m.Descriptor, &index)
		var img, about ocispec.Manifest
		m.read(index.Manifests[0], &img)
		m.read(index.Manifests[1], &about)
		require.Len(t, img.Layers, 2)
		comments := func(n int) (all []string) {
			var s attest.Statement
			m.read(about.Layers[n], &s)
			var doc struct{ Files []struct{ Comment string } }
			require.NoError(t, json.Unmarshal(s.Predicate, &doc))
			for _, f := range doc.Files {
				all = append(all, f.Comment)
			}
			return all
		}
		require.Equal(t, []string{"layerID: " + img.Layers[1].Digest.String(), "layerID: " + img.Layers[0].Digest.String(), ""}, comments(0))
		require.Equal(t, []string{"", "", ""}, comments(1), "stages are not in the image")
	}
}
