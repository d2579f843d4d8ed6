package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
)

// artifact refers to an image.
func (s *store) artifact(subject ocispec.Descriptor, kind string) ocispec.Descriptor {
	return s.manifest(subject, kind, kind)
}

func (s *store) manifest(subject ocispec.Descriptor, config, artifactType string) ocispec.Descriptor {
	return s.addJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		// The type of the config is what older clients and registries go by.
		Config: s.add(config, []byte(`{}`)), Layers: []ocispec.Descriptor{s.add("text/plain", []byte(config))},
		Subject: &subject, Annotations: map[string]string{"is": config},
	})
}

// listingRegistry is a registry with the referrers API.
func listingRegistry(t *testing.T) string {
	t.Helper()
	inner := ggcr.New(ggcr.WithReferrersSupport(true), ggcr.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			var m ocispec.Manifest
			if json.Unmarshal(body, &m) == nil && m.Subject != nil {
				w.Header().Set("OCI-Subject", m.Subject.Digest.String()) // ours does not, but has to
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestReferrers(t *testing.T) {
	withAPI, without := listingRegistry(t), registrytest.Start(t, registrytest.Options{}).Addr
	for name, addr := range map[string]string{
		"of a registry with the API":              withAPI,
		"kept under a tag, of a registry without": without,
	} {
		t.Run(name, func(t *testing.T) {
			cs := newContent(t)
			image := cs.image(1)
			a, b := cs.artifact(image, "application/a"), cs.artifact(image, "application/b")
			c := registry.New(registry.Config{})
			push := func(ref string, desc ocispec.Descriptor) error {
				return c.Repository(parse(t, addr+"/x/y"+ref), nil).Push(t.Context(), desc, cs, event.Scope{})
			}
			require.NoError(t, push(":1", image))
			repo := c.Repository(parse(t, addr+"/x/y:1"), nil)
			none, err := repo.Referrers(t.Context(), image.Digest)
			require.NoError(t, err)
			require.Empty(t, none)

			// Both at once, and again: each is listed, once.
			var g errgroup.Group
			for ref, desc := range map[string]ocispec.Descriptor{":a": a, ":b": b, "": a} {
				g.Go(func() error { return push(ref, desc) })
			}
			require.NoError(t, g.Wait())
			require.NoError(t, push(":a", a))
			all, err := repo.Referrers(t.Context(), image.Digest)
			require.NoError(t, err)
			require.ElementsMatch(t, []digest.Digest{a.Digest, b.Digest}, digests(all))
			some, err := repo.Referrers(t.Context(), image.Digest, "application/b", "application/none")
			require.NoError(t, err)
			require.Len(t, some, 1)
			require.Equal(t, b.Digest, some[0].Digest)
			require.Equal(t, b.Size, some[0].Size)
			require.Equal(t, ocispec.MediaTypeImageManifest, some[0].MediaType)
			require.Equal(t, map[string]string{"is": "application/b"}, some[0].Annotations)

			tag := c.Repository(parse(t, addr+"/x/y:"+strings.Replace(image.Digest.String(), ":", "-", 1)), nil)
			_, err = tag.Resolve(t.Context())
			require.Equal(t, addr == withAPI, errdefs.IsNotFound(err), "%v", err)
		})
	}
	t.Run("are listed without an artifact type by that of the config", func(t *testing.T) {
		cs := newContent(t)
		image := cs.image(1)
		artifact := cs.manifest(image, "application/old", "")
		c := registry.New(registry.Config{})
		repo := c.Repository(parse(t, without+"/x/old:1"), nil)
		require.NoError(t, repo.Push(t.Context(), artifact, cs, event.Scope{}), "the subject need not be there")
		found, err := repo.Referrers(t.Context(), image.Digest, "application/old")
		require.NoError(t, err)
		require.Equal(t, []digest.Digest{artifact.Digest}, digests(found))
	})
	t.Run("are not listed in what is no index", func(t *testing.T) {
		cs := newContent(t)
		image := cs.image(1)
		c := registry.New(registry.Config{})
		tag := c.Repository(parse(t, without+"/x/taken:"+strings.Replace(image.Digest.String(), ":", "-", 1)), nil)
		require.NoError(t, tag.Push(t.Context(), image, cs, event.Scope{}))
		err := c.Repository(parse(t, without+"/x/taken:a"), nil).Push(t.Context(), cs.artifact(image, "application/a"), cs, event.Scope{})
		require.ErrorContains(t, err, "referrers of "+without+"/x/taken@"+image.Digest.String()+": the list is of type application/vnd.oci.image.manifest.v1+json")
	})
	t.Run("with a subject that has no digest are not pushed", func(t *testing.T) {
		cs := newContent(t)
		artifact := cs.artifact(ocispec.Descriptor{Digest: "../x"}, "application/a")
		err := registry.New(registry.Config{}).Repository(parse(t, without+"/x/bad:1"), nil).Push(t.Context(), artifact, cs, event.Scope{})
		require.ErrorContains(t, err, "subject of manifest "+artifact.Digest.String())
	})
}

func TestReferrersAreLookedForAtMirrors(t *testing.T) {
	cs := newContent(t)
	image := cs.image(1)
	artifact := cs.artifact(image, "application/a")
	listing, empty := listingRegistry(t), registrytest.Start(t, registrytest.Options{}).Addr
	for _, desc := range []ocispec.Descriptor{image, artifact} {
		require.NoError(t, registry.New(registry.Config{}).Repository(parse(t, listing+"/x/y:1"), nil).Push(t.Context(), desc, cs, event.Scope{}))
	}
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(failing.Close)
	for _, tc := range []struct {
		name, origin, mirror string
		found                int
		err                  string
	}{
		{"a mirror has them", "localhost:1", listing, 1, ""},
		{"the registry has them", listing, empty, 1, ""},
		{"the mirror does not answer", listing, "localhost:1", 1, ""},
		{"nobody has any", empty, empty, 0, ""},
		{"the mirror has none and the registry does not answer", "localhost:1", empty, 0, ""},
		{"nobody answers", "localhost:1", "localhost:2", 0, "referrers of"},
		{"the mirror has none and the registry does not tell", strings.TrimPrefix(failing.URL, "http://"), empty, 0, "403 Forbidden"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := registry.New(registry.Config{Hosts: map[string]registry.HostConfig{tc.origin: {Mirrors: []string{tc.mirror}}}})
			found, err := c.Repository(parse(t, tc.origin+"/x/y:1"), nil).Referrers(t.Context(), image.Digest)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Len(t, found, tc.found)
		})
	}
}

// Each page has one entry and breaks off once, before the whole of it is sent.
func TestReferrersComeInPages(t *testing.T) {
	const pages = 3
	broken := map[string]bool{}
	repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("last"))
		if n < pages-1 {
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, r.URL.Path, n+1))
		}
		page := fmt.Sprintf(`{"manifests":[{"digest":"sha256:%064d"}]}`, n)
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		if !broken[r.URL.RawQuery] {
			broken[r.URL.RawQuery] = true
			page = page[:len(page)/2]
		}
		_, _ = io.WriteString(w, page)
	})
	found, err := repo.Referrers(t.Context(), payloadDesc().Digest)
	require.NoError(t, err)
	require.Len(t, found, pages)
	for i, desc := range found {
		require.Equal(t, fmt.Sprintf("sha256:%064d", i), desc.Digest.String())
	}
}

func TestReferrersOfHostileRegistries(t *testing.T) {
	for name, body := range map[string]string{
		"that is no JSON":            `]`,
		"with digests that are none": `{"manifests":[{"digest":"../../etc"}]}`,
		"of another type":            `{"mediaType":"text/plain"}`,
		"that are too large":         `{"manifests":[` + strings.Repeat(`{"digest":"sha256:`+strings.Repeat("0", 64)+`"},`, 1<<16),
	} {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		_, err := repo.Referrers(t.Context(), payloadDesc().Digest)
		require.ErrorContains(t, err, "referrers of", name)
	}
	for name, tc := range map[string]struct{ link, err string }{
		"whose pages have no end": {`<?last=x>; rel="next"`, "the list is too large"},
		"that lead elsewhere":     {`<http://other.test/>; rel="next"`, "other host other.test"},
	} {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", tc.link)
			_, _ = io.WriteString(w, `{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`"}]}`+strings.Repeat(" ", 1<<20))
		})
		_, err := repo.Referrers(t.Context(), payloadDesc().Digest)
		require.ErrorContains(t, err, tc.err, name)
	}
	_, err := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be asked for") }).Referrers(t.Context(), "md5:x")
	require.ErrorContains(t, err, "referrers of")
}

func digests(descs []ocispec.Descriptor) []digest.Digest {
	all := make([]digest.Digest, len(descs))
	for i, d := range descs {
		all[i] = d.Digest
	}
	return all
}
