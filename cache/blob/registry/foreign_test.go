package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
)

const foreignBytes = "bytes that registries must not distribute"

// ownPath is a place on the registry's own server that is none of the registry's.
const ownPath = "/elsewhere"

// foreignServers are a registry, of which one must be a user, and another server.
type foreignServers struct {
	registry, other *httptest.Server
	mu              sync.Mutex
	// outside are the requests for URLs that a descriptor named.
	outside []*http.Request
}

func startForeign(t *testing.T) *foreignServers {
	t.Helper()
	f := &foreignServers{}
	outside := func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.outside = append(f.outside, r)
		_, _ = io.WriteString(w, foreignBytes)
	}
	f.other = httptest.NewServer(http.HandlerFunc(outside))
	t.Cleanup(f.other.Close)
	f.registry = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, _, known := r.BasicAuth(); {
		case r.URL.Path == ownPath:
			outside(w, r)
		case !known:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, foreignBytes)
		}
	}))
	t.Cleanup(f.registry.Close)
	return f
}

// repository has sent credentials to the registry before.
func (f *foreignServers) repository(t *testing.T) *registry.Repository {
	t.Helper()
	c := registry.New(registry.Config{Sessions: fakeSessions{"s": {user: "ann", secret: "pw"}}})
	repo := c.Repository(parse(t, strings.TrimPrefix(f.registry.URL, "http://")+"/x/y:1"), session.IDs{"s"})
	require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(ocispec.MediaTypeImageLayer), 0)))
	return repo
}

func foreignDesc(mediaType string, urls ...string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: mediaType, Digest: digest.FromString(foreignBytes), Size: int64(len(foreignBytes)), URLs: urls,
	}
}

func TestNoRequestGoesToURLsOfWhatMayBeDistributed(t *testing.T) {
	f := startForeign(t)
	repo := f.repository(t)
	for _, mediaType := range []string{
		ocispec.MediaTypeImageLayerGzip, images.MediaTypeDockerSchema2LayerGzip,
		ocispec.MediaTypeImageConfig, "application/x-other", "",
	} {
		require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(mediaType, f.other.URL), 0)))
	}
	for _, mediaType := range []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex} {
		data, err := repo.FetchManifest(t.Context(), foreignDesc(mediaType, f.other.URL), limit)
		require.NoError(t, err)
		require.Equal(t, foreignBytes, string(data))
	}
	require.Empty(t, f.outside)
}

func TestForeignLayersAreReadFromTheirURLsWithoutCredentials(t *testing.T) {
	const foreign = images.MediaTypeDockerSchema2LayerForeignGzip
	f := startForeign(t)
	repo := f.repository(t)
	require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, f.other.URL+"/layer?sig=1"), 0)))
	require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, f.registry.URL+ownPath), 0)))
	require.Len(t, f.outside, 2)
	require.Equal(t, "/layer?sig=1", f.outside[0].URL.String())
	for _, r := range f.outside {
		require.Empty(t, r.Header["Authorization"])
		require.Empty(t, r.Header["Cookie"])
	}

	f.outside = nil
	for _, url := range []string{"ftp://" + f.other.URL, "file:///etc/passwd", "//x", ":", ""} {
		require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, url), 0)), url)
	}
	require.Empty(t, f.outside)
}

func TestAForeignLayerThatItsURLsDoNotHaveIsReadFromTheRegistry(t *testing.T) {
	f := startForeign(t)
	repo := f.repository(t)
	var asked []string
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		switch r.URL.Path {
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/short":
			_, _ = io.WriteString(w, foreignBytes[:5])
		case "/long":
			_, _ = io.WriteString(w, foreignBytes+foreignBytes)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(bad.Close)
	const foreign = images.MediaTypeDockerSchema2LayerForeignGzip
	for _, path := range []string{"/absent", "/forbidden", "/broken"} {
		asked = nil
		require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, bad.URL+path), 0)), path)
		require.Contains(t, asked, path)
	}
	require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, "http://127.0.0.1:1/x", bad.URL+"/short"), 0)))
	f.outside = nil
	require.Equal(t, foreignBytes, string(readLayer(t, repo, foreignDesc(foreign, bad.URL+"/forbidden", f.other.URL), 0)))
	require.Len(t, f.outside, 1, "the other URL comes before the registry")

	t.Run("and so is one of which they have something else", func(t *testing.T) {
		source, ok := repo.Source(event.Scope{}).(blob.Fallback)
		require.True(t, ok)
		desc := foreignDesc(foreign, bad.URL+"/long")
		read := func() error {
			rc, err := source.Open(t.Context(), desc, 0)
			require.NoError(t, err)
			defer rc.Close()
			_, err = io.ReadAll(rc)
			return err
		}
		require.ErrorIs(t, read(), blob.ErrWrong)
		require.True(t, source.Fallback(t.Context(), desc.Digest))
		require.NoError(t, read())
		require.False(t, source.Fallback(t.Context(), desc.Digest), "there is no other place than the registry")
	})
}
