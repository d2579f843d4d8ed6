package registry_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
)

// artifact refers to an image.
func (s *store) artifact(subject ocispec.Descriptor, kind string) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: kind,
		// The type of the config is what older clients and registries go by.
		Config: s.add(kind, []byte(`{}`)), Layers: []ocispec.Descriptor{s.add("text/plain", []byte(kind))},
		Subject: &subject,
	}
	desc := s.addJSON(m.MediaType, m)
	desc.ArtifactType = kind
	return desc
}

func TestReferrers(t *testing.T) {
	quiet := ggcr.Logger(log.New(io.Discard, "", 0))
	withAPI := httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(true), quiet))
	t.Cleanup(withAPI.Close)
	for name, addr := range map[string]string{
		"of a registry with the API":              strings.TrimPrefix(withAPI.URL, "http://"),
		"kept under a tag, of a registry without": registrytest.Start(t, registrytest.Options{}).Addr,
	} {
		t.Run(name, func(t *testing.T) {
			cs := newContent(t)
			image := cs.image(1)
			a, b := cs.artifact(image, "application/a"), cs.artifact(image, "application/b")
			c := registry.New(registry.Config{})
			push := func(ref string, desc ocispec.Descriptor) {
				require.NoError(t, c.Repository(parse(t, addr+"/x/y"+ref), nil).Push(t.Context(), desc, cs, event.Scope{}))
			}
			push(":1", image)
			repo := c.Repository(parse(t, addr+"/x/y:1"), nil)
			none, err := repo.Referrers(t.Context(), image.Digest)
			require.NoError(t, err)
			require.Empty(t, none)

			push(":a", a)
			push(":b", b)
			if !strings.Contains(withAPI.URL, addr) {
				idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b}}
				push(":"+strings.Replace(image.Digest.String(), ":", "-", 1), cs.addJSON(idx.MediaType, idx))
			}
			all, err := repo.Referrers(t.Context(), image.Digest)
			require.NoError(t, err)
			require.ElementsMatch(t, []digest.Digest{a.Digest, b.Digest}, digests(all))
			some, err := repo.Referrers(t.Context(), image.Digest, "application/b", "application/none")
			require.NoError(t, err)
			require.Equal(t, []digest.Digest{b.Digest}, digests(some))
		})
	}
	t.Run("of a hostile registry", func(t *testing.T) {
		for name, body := range map[string]string{
			"that is no JSON":            `]`,
			"with digests that are none": `{"manifests":[{"digest":"../../etc"}]}`,
			"without end":                `{"manifests":[` + strings.Repeat(`{"digest":"sha256:`+strings.Repeat("0", 64)+`"},`, 1<<16),
		} {
			repo := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
			_, err := repo.Referrers(t.Context(), payloadDesc().Digest)
			require.Error(t, err, name)
		}
		_, err := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be asked for") }).Referrers(t.Context(), "md5:x")
		require.ErrorContains(t, err, "referrers of")
	})
}

func digests(descs []ocispec.Descriptor) []digest.Digest {
	all := make([]digest.Digest, len(descs))
	for i, d := range descs {
		all[i] = d.Digest
	}
	return all
}
