package image

import (
	"encoding/json"
	"testing"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/worker/source"
)

const (
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	provenance = `{"predicate":"provenance"}`
	sbom       = `{"predicate":"sbom"}`
)

// artifact returns an OCI manifest with blobs.
func artifact(t *testing.T, mediaType types.MediaType, layers ...mutate.Addendum) v1.Image {
	t.Helper()
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layers...)
	require.NoError(t, err)
	return mutate.ConfigMediaType(img, mediaType)
}

func said(data, predicate string) mutate.Addendum {
	return mutate.Addendum{
		Layer: static.NewLayer([]byte(data), "application/vnd.in-toto+json"), MediaType: "application/vnd.in-toto+json",
		Annotations: map[string]string{blob.AnnotationPredicateType: predicate},
	}
}

// attestedIndex returns an index of two platforms of which the first has attestations, which come
// back too.
func attestedIndex(t *testing.T) (v1.ImageIndex, v1.Image) {
	t.Helper()
	index := indexFor(t, "linux/amd64", "linux/arm64")
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	about := artifact(t, types.OCIConfigJSON, said(provenance, "https://slsa.dev/provenance/v1"), said(sbom, "https://spdx.dev/Document"))
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: about, Descriptor: v1.Descriptor{
		Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"},
		Annotations: map[string]string{
			blob.AnnotationReferenceType: blob.ReferenceAttestation, blob.AnnotationReferenceDigest: manifest.Manifests[0].Digest.String(),
		},
	}}), about
}

// sign pushes a signature of something.
func (s *server) sign(t *testing.T, repo string, what partial.Describable) digest.Digest {
	t.Helper()
	desc, err := partial.Descriptor(what)
	require.NoError(t, err)
	sig := artifact(t, bundleType, mutate.Addendum{Layer: static.NewLayer([]byte(`{"signed":true}`), bundleType), MediaType: bundleType})
	return s.push(t, repo+":sig", mutate.Subject(sig, *desc).(v1.Image))
}

func TestAttestationsOfAnImageAreFound(t *testing.T) {
	s, st := newServer(t), newCache(t)
	index, about := attestedIndex(t)
	root := s.push(t, "a/b:1", index)
	sig := s.sign(t, "a/b", about)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	op := &pb.SourceOp{Identifier: pb.SchemeImage + s.addr + "/a/b:1"}

	c, err := src.ResolveAttestations(t.Context(), op, amd64, "", []string{"https://spdx.dev/Document"}, source.Env{})
	require.NoError(t, err)
	require.Equal(t, root.String(), c.GetRoot())
	aboutDigest, err := about.Digest()
	require.NoError(t, err)
	require.Equal(t, aboutDigest.String(), c.GetAttestationManifest())
	require.Equal(t, []string{sig.String()}, c.GetSignatureManifests())
	require.Len(t, c.GetBlobs(), 6, "index, image, attestations, SBOM, signature and what it holds")
	found := map[string]bool{}
	for dgst, b := range c.GetBlobs() {
		require.Equal(t, dgst, digest.FromBytes(b.GetData()).String())
		require.Equal(t, dgst, b.GetDescriptor_().GetDigest())
		require.EqualValues(t, len(b.GetData()), b.GetDescriptor_().GetSize())
		found[string(b.GetData())] = true
	}
	require.True(t, found[sbom])
	require.True(t, found[`{"signed":true}`])
	require.False(t, found[provenance], "nobody asked for it")
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(c.GetBlobs()[c.GetImageManifest()].GetData(), &m))

	c, err = src.ResolveAttestations(t.Context(), op, platforms.MustParse("linux/arm64"), "", nil, source.Env{})
	require.NoError(t, err)
	require.Empty(t, c.GetAttestationManifest())
	require.Empty(t, c.GetSignatureManifests())
	require.Len(t, c.GetBlobs(), 2)
}

func TestAnImageWithoutAnIndexHasSignatures(t *testing.T) {
	s, st := newServer(t), newCache(t)
	img := imageFor(t, "linux/amd64", 1)
	root := s.push(t, "a/b:1", img)
	sig := s.sign(t, "a/b", img)
	c, err := New(Config{Cache: st, Registry: registry.New(registry.Config{})}).ResolveAttestations(t.Context(), &pb.SourceOp{Identifier: pb.SchemeImage + s.addr + "/a/b:1"}, amd64, "", nil, source.Env{})
	require.NoError(t, err)
	require.Equal(t, root.String(), c.GetRoot())
	require.Equal(t, root.String(), c.GetImageManifest())
	require.Equal(t, []string{sig.String()}, c.GetSignatureManifests())
}

func TestWhatIsListedAsASignatureMustBeOne(t *testing.T) {
	s, st := newServer(t), newCache(t)
	img := imageFor(t, "linux/amd64", 1)
	root := s.push(t, "a/b:1", img)
	other := s.push(t, "a/b:other", artifact(t, bundleType))
	forged := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	forged = mutate.AppendManifests(forged, mutate.IndexAddendum{Add: artifact(t, bundleType), Descriptor: v1.Descriptor{ArtifactType: bundleType}})
	s.push(t, "a/b:sha256-"+root.Encoded(), forged)
	_, err := New(Config{Cache: st, Registry: registry.New(registry.Config{})}).ResolveAttestations(t.Context(), &pb.SourceOp{Identifier: pb.SchemeImage + s.addr + "/a/b:1"}, amd64, "", nil, source.Env{})
	require.ErrorContains(t, err, "invalid image "+other.String()+": it is listed as a signature of "+root.String()+" and is none")
}
