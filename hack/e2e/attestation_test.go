package e2e_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/openbuildkit/buildkit/api/llb"
	library "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

const (
	predicateSPDX       = "https://spdx.dev/Document"
	predicateProvenance = "https://slsa.dev/provenance/v1"
)

// verified reads what an index says of its images the way those who verify it do, and returns the manifest
// of attestations for each image. Every statement is one to in-toto's own library and is about the image
// that it stands beside, under the names.
func verified(t *testing.T, index v1.ImageIndex, names []string, predicates ...string) map[v1.Hash]v1.Descriptor {
	t.Helper()
	top, err := index.IndexManifest()
	require.NoError(t, err)
	sizes := map[string]int64{}
	for _, m := range top.Manifests {
		sizes[m.Digest.String()] = m.Size
	}
	out := map[v1.Hash]v1.Descriptor{}
	for _, m := range top.Manifests {
		if m.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			image, err := index.Image(m.Digest)
			require.NoError(t, err)
			require.NoError(t, validate.Image(image))
			continue
		}
		subject, err := v1.NewHash(m.Annotations["vnd.docker.reference.digest"])
		require.NoError(t, err)
		require.Contains(t, sizes, subject.String(), "it is about an image of the index")
		about, err := index.Image(m.Digest)
		require.NoError(t, err)
		manifest, err := about.Manifest()
		require.NoError(t, err)
		if manifest.Subject != nil {
			require.Equal(t, subject, manifest.Subject.Digest)
			require.Equal(t, sizes[subject.String()], manifest.Subject.Size)
		}
		if manifest.ArtifactType == "" {
			config, err := about.ConfigFile()
			require.NoError(t, err)
			require.Equal(t, "unknown/unknown", config.OS+"/"+config.Architecture)
			require.Len(t, config.RootFS.DiffIDs, len(manifest.Layers))
		}
		var stated []string
		for _, l := range manifest.Layers {
			layer, err := about.LayerByDigest(l.Digest)
			require.NoError(t, err)
			r, err := layer.Compressed()
			require.NoError(t, err)
			data, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Len(t, data, int(l.Size))
			s := &intoto.Statement{}
			require.NoError(t, protojson.Unmarshal(data, s), string(data))
			require.NoError(t, s.Validate())
			require.Equal(t, l.Annotations["in-toto.io/predicate-type"], s.GetPredicateType())
			var called []string
			for _, sub := range s.GetSubject() {
				require.Equal(t, map[string]string{"sha256": subject.Hex}, sub.GetDigest())
				called = append(called, sub.GetName())
			}
			require.Len(t, called, len(names))
			for i, n := range names {
				require.True(t, strings.HasPrefix(called[i], packageURL(n)+"?platform="), "%s is %s", n, called[i])
			}
			stated = append(stated, s.GetPredicateType())
		}
		require.ElementsMatch(t, predicates, stated)
		out[subject] = m
	}
	return out
}

// packageURL returns the url of an image with a tag, without its platform.
func packageURL(ref string) string {
	tag := strings.LastIndex(ref, ":")
	return "pkg:docker/" + strings.Replace(ref[:tag], ":", "%3A", 1) + "@" + ref[tag+1:]
}

// referrers returns what a registry lists about a manifest.
func referrers(t *testing.T, repository string, subject v1.Hash) []v1.Descriptor {
	t.Helper()
	d, err := name.NewDigest(repository + "@" + subject.String())
	require.NoError(t, err)
	index, err := remote.Referrers(d)
	require.NoError(t, err)
	m, err := index.IndexManifest()
	require.NoError(t, err)
	return m.Manifests
}

func TestWhatIsSaidOfAPushedImageIsReadBack(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	scanner := pushScanner(t, d, registry)
	c := connect(t, d)
	def := marshal(t, llb.Scratch().File(llb.Mkfile("/only", 0o644, []byte("contents"))))
	predicates := []string{predicateSPDX, predicateProvenance}
	for _, tc := range []struct {
		name     string
		version  int64
		attrs    map[string]string
		index    types.MediaType
		artifact bool
	}{
		{name: "current", index: types.OCIImageIndex, artifact: true},
		{name: "no artifacts", attrs: map[string]string{"oci-artifact": "false"}, index: types.OCIImageIndex},
		{name: "docker types", attrs: map[string]string{"oci-mediatypes": "false"}, index: types.DockerManifestList},
		{name: "version 30", version: 30, index: types.OCIImageIndex, artifact: true},
		{name: "version 20", version: 20, index: types.OCIImageIndex},
		{name: "version 20 with artifacts", version: 20, attrs: map[string]string{"oci-artifact": "true"}, index: types.OCIImageIndex, artifact: true},
		{name: "version 10", version: 10, index: types.OCIImageIndex},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The second name is one of Docker Hub, for which the daemon has the registry as a mirror.
			repository := registry.Host + "/library/" + strings.ReplaceAll(tc.name, " ", "-")
			names := []string{repository + ":1", registry.Host + "/out/" + strings.ReplaceAll(tc.name, " ", "-") + ":latest"}
			attrs := map[string]string{"name": strings.Join(names, ","), "push": "true"}
			for k, v := range tc.attrs {
				attrs[k] = v
			}
			_, err := c.Solve(t.Context(), def, library.SolveOpt{
				CompatibilityVersion: tc.version, Exports: []library.Export{{Type: "image", Attrs: attrs}},
				FrontendAttrs: map[string]string{"attest:sbom": "generator=" + scanner, "attest:provenance": "mode=min"},
			})
			require.NoError(t, err)
			var image v1.Hash
			var about v1.Descriptor
			for _, n := range names {
				ref, err := name.ParseReference(n)
				require.NoError(t, err)
				index, err := remote.Index(ref)
				require.NoError(t, err)
				if tc.artifact { // else the tool wants archives where the statements are
					require.NoError(t, validate.Index(index))
				}
				mediaType, err := index.MediaType()
				require.NoError(t, err)
				require.Equal(t, tc.index, mediaType)
				all := verified(t, index, names, predicates...)
				require.Len(t, all, 1)
				for subject, manifest := range all {
					image, about = subject, manifest
				}
			}
			var listed []v1.Hash
			for _, r := range referrers(t, repository, image) {
				require.Equal(t, "application/vnd.docker.attestation.manifest.v1+json", r.ArtifactType)
				require.Equal(t, about.Size, r.Size)
				listed = append(listed, r.Digest)
			}
			if tc.artifact {
				require.Equal(t, []v1.Hash{about.Digest}, listed)
			} else {
				require.Empty(t, listed)
			}

			// Other tools copy it as it is.
			copied := registry.Host + "/copied/" + strings.ReplaceAll(tc.name, " ", "-") + ":1"
			if tc.index == types.DockerManifestList { // in manifests of Docker's, skopeo takes nothing but layers
				crane(t, "copy", names[0], copied)
			} else {
				command(t, "skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+names[0], "docker://"+copied)
			}
			ref, err := name.ParseReference(copied)
			require.NoError(t, err)
			inner, err := remote.Index(ref)
			require.NoError(t, err)
			require.Contains(t, verified(t, inner, names, predicates...), image)

			// And the daemon tells of it, from the registry and from the mirror.
			drive(t, connectTo(t, d), library.SolveOpt{}, func(ctx context.Context, g gateway.Client) {
				for _, source := range []string{names[0], "docker.io/library/" + strings.ReplaceAll(tc.name, " ", "-") + ":1"} {
					meta, err := g.ResolveSourceMeta(ctx, &pb.SourceOp{Identifier: "docker-image://" + source},
						gateway.ResolveOpt{AttestationChain: true, Attestations: []string{predicateSPDX}})
					require.NoError(t, err)
					chain := meta.Image.Attestations
					require.Equal(t, image.String(), chain.GetImageManifest())
					require.Equal(t, about.Digest.String(), chain.GetAttestationManifest())
					statements := 0
					for _, b := range chain.GetBlobs() {
						if b.GetDescriptor_().GetAnnotations()["in-toto.io/predicate-type"] == predicateSPDX {
							statements++
							require.Contains(t, string(b.GetData()), image.Hex)
						}
					}
					require.Equal(t, 1, statements)
				}
			})
		})
	}
}

// What is said of the images of two platforms is in every kind of output that holds it.
func TestWhatIsSaidOfPlatformsIsInEveryOutput(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	registry.PushPlatforms(t)
	scanner := pushScanner(t, d, registry)
	dir := tree(t, map[string]string{"Dockerfile": "FROM platforms\nCOPY file /\n", "file": "contents"})
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }
	ask := []string{"--opt=attest:sbom=generator=" + scanner, "--opt=attest:provenance=mode=min", "--opt=platform=linux/amd64,linux/arm64"}
	r := d.Build(t, dir, append(ask, "--output=type=oci,tar=false,name=example.org/a:1,dest="+at("layout"),
		"--output=type=local,attestation-prefix=said-,dest="+at("split"), "--output=type=tar,dest="+at("tar"))...)
	for _, platform := range []string{"amd64", "arm64"} {
		require.Contains(t, r.Stderr, "[linux/"+platform+"] generating sbom using "+scanner)
	}
	again := d.Build(t, dir, ask...).Cached()
	for _, platform := range []string{"amd64", "arm64"} {
		require.Contains(t, again, "[linux/"+platform+"] generating sbom using "+scanner, "nothing has changed")
	}

	from, err := layout.ImageIndexFromPath(at("layout"))
	require.NoError(t, err)
	top, err := from.IndexManifest()
	require.NoError(t, err)
	index, err := from.ImageIndex(top.Manifests[0].Digest)
	require.NoError(t, err)
	require.Len(t, verified(t, index, []string{"example.org/a:1"}, predicateSPDX, predicateProvenance), 2)

	// Files name the files of their platform with their digests.
	require.NoError(t, os.Mkdir(at("unpacked"), 0o755))
	command(t, "tar", "-xf", at("tar"), "-C", at("unpacked"))
	for folder, prefix := range map[string]string{"split": "said-", "unpacked": ""} {
		for _, platform := range []string{"linux_amd64", "linux_arm64"} {
			for name, predicate := range map[string]string{"sbom.spdx.json": predicateSPDX, "provenance.json": predicateProvenance} {
				data, err := os.ReadFile(filepath.Join(at(folder), platform, prefix+name))
				require.NoError(t, err)
				s := &intoto.Statement{}
				require.NoError(t, protojson.Unmarshal(data, s))
				require.NoError(t, s.Validate())
				require.Equal(t, predicate, s.GetPredicateType())
				require.NotEmpty(t, s.GetSubject())
				for _, sub := range s.GetSubject() {
					content := read(t, at(folder), platform, sub.GetName())
					require.Equal(t, digest.FromString(content).Encoded(), sub.GetDigest()["sha256"], sub.GetName())
				}
			}
		}
	}
}
