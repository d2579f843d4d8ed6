package registry_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/session"
)

// store puts documents into a content store.
type store struct {
	content.Store
	t *testing.T
}

func newContent(t *testing.T) *store {
	t.Helper()
	s, err := local.NewLabeledStore(t.TempDir(), &labels{m: map[digest.Digest]map[string]string{}})
	require.NoError(t, err)
	return &store{s, t}
}

// labels keeps those of blobs in memory.
type labels struct {
	mu sync.Mutex
	m  map[digest.Digest]map[string]string
}

func (l *labels) Get(dgst digest.Digest) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.m[dgst]), nil
}

func (l *labels) Set(dgst digest.Digest, all map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.m[dgst] = maps.Clone(all)
	return nil
}

func (l *labels) Update(dgst digest.Digest, some map[string]string) (map[string]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := maps.Clone(l.m[dgst])
	maps.Copy(all, some)
	maps.DeleteFunc(all, func(_, v string) bool { return v == "" })
	l.m[dgst] = all
	return maps.Clone(all), nil
}

func (s *store) add(mediaType string, data []byte) ocispec.Descriptor {
	s.t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(s.t, content.WriteBlob(s.t.Context(), s, desc.Digest.String(), bytes.NewReader(data), desc))
	return desc
}

func (s *store) addJSON(mediaType string, v any) ocispec.Descriptor {
	s.t.Helper()
	data, err := json.Marshal(v)
	require.NoError(s.t, err)
	return s.add(mediaType, data)
}

// index is an index over one image with the payload as its layer.
func (s *store) index() ocispec.Descriptor {
	layer := s.add(ocispec.MediaTypeImageLayer, payload)
	config := s.addJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer, layer}}
	m.SchemaVersion = 2
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{s.addJSON(m.MediaType, m)}}
	idx.SchemaVersion = 2
	return s.addJSON(idx.MediaType, idx)
}

func TestPush(t *testing.T) {
	s := registrytest.Start(t, registrytest.Options{TLS: true, Users: map[string]string{"ann": "pw"}})
	cs := newContent(t)
	desc := cs.index()
	c := registry.New(registry.Config{Sessions: fakeSessions{"s": {user: "ann", secret: "pw"}}})
	var shown []string
	scope := event.NewScope(event.SinkFunc(func(b event.Batch) {
		for _, st := range b.Statuses {
			if st.Completed != nil {
				shown = append(shown, st.ID)
			}
		}
	}), "sha256:v")
	ref := s.Addr + "/x/y:1"
	for range 2 { // the second time all is there
		require.NoError(t, c.Repository(parse(t, ref), session.IDs{"s"}, registry.Insecure(true)).Push(t.Context(), desc, cs, scope))
	}
	manifest := "pushing manifest for " + ref + "@" + desc.Digest.String()
	require.Equal(t, []string{"pushing layers", manifest, "pushing layers", manifest}, shown)

	n, err := name.ParseReference(ref)
	require.NoError(t, err)
	idx, err := remote.Index(n, remote.WithAuth(&authn.Basic{Username: "ann", Password: "pw"}),
		remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}))
	require.NoError(t, err)
	got, err := idx.Digest()
	require.NoError(t, err)
	require.Equal(t, desc.Digest.String(), got.String())
	require.NoError(t, validate.Index(idx, validate.Fast))

	t.Run("is refused without credentials", func(t *testing.T) {
		err := c.Repository(parse(t, ref), nil, registry.Insecure(true)).Push(t.Context(), desc, cs, event.Scope{})
		require.ErrorContains(t, err, "authoriz")
	})
}

func TestPushToNobody(t *testing.T) {
	cs := newContent(t)
	err := registry.New(registry.Config{}).Repository(parse(t, "localhost:1/x/y:1"), nil).Push(t.Context(), cs.index(), cs, event.Scope{})
	require.ErrorContains(t, err, `failed to do request: Head "http://localhost:1/v2/x/y/blobs/sha256:`)
	require.ErrorContains(t, err, "connection refused")
}

func TestAManifestIsSentAgainWhileWhatItNeedsIsOutOfSight(t *testing.T) {
	const unknown = `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`
	for name, refusals := range map[string]int{"for a moment": 2, "for good": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cs := newContent(t)
			var sent int
			repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/"):
				case r.Method != http.MethodPut:
					w.WriteHeader(http.StatusNotFound)
				default:
					if sent++; sent <= refusals {
						w.WriteHeader(http.StatusBadRequest)
						_, _ = io.WriteString(w, unknown)
						return
					}
					w.WriteHeader(http.StatusCreated)
				}
			})
			err := repo.Push(t.Context(), cs.image(1), cs, event.Scope{})
			if refusals > 2 {
				require.ErrorContains(t, err, "400 Bad Request: blob unknown to registry")
				return
			}
			require.NoError(t, err)
			require.Equal(t, refusals+1, sent)
		})
	}
}
