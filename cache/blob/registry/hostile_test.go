package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
)

// serve runs handler as a registry and returns the repository x/y:1 of it.
func serve(t *testing.T, handler http.HandlerFunc) *registry.Repository {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	ref := strings.TrimPrefix(s.URL, "http://") + "/x/y:1"
	return registry.New(registry.Config{}).Repository(parse(t, ref), nil)
}

func descOf(data string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(data), Size: int64(len(data)),
	}
}

func TestHostileRegistries(t *testing.T) {
	const manifest = `{"schemaVersion":2}`
	t.Run("a wrong digest", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"schemaVersion":3}`) })
		_, err := repo.Fetch(t.Context(), descOf(manifest), limit)
		var wrong *registry.DigestError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, wrong.Want, descOf(manifest).Digest)
	})
	t.Run("a manifest that says it is huge", func(t *testing.T) {
		repo := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be asked for") })
		desc := descOf(manifest)
		desc.Size = 1 << 40
		_, err := repo.Fetch(t.Context(), desc, limit)
		var large *registry.SizeError
		require.ErrorAs(t, err, &large)
		require.EqualValues(t, 1<<40, large.Size)
	})
	t.Run("a body longer than it should be", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, manifest+"    ") })
		_, err := repo.Fetch(t.Context(), descOf(manifest), limit)
		var large *registry.SizeError
		require.ErrorAs(t, err, &large)
	})
	t.Run("a manifest without end and without digest", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
			for r.Method == http.MethodGet {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		})
		_, err := repo.Resolve(t.Context())
		require.ErrorContains(t, err, "too large")
	})
	t.Run("a size header beyond the limit", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99999999999")
			w.Header().Set("Docker-Content-Digest", string(descOf(manifest).Digest))
		})
		_, err := repo.Resolve(t.Context())
		require.ErrorContains(t, err, "rejecting 99999999999 byte manifest")
	})
	t.Run("a digest header that is none", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Header().Set("Docker-Content-Digest", "sha256:zz")
		})
		_, err := repo.Resolve(t.Context())
		require.ErrorContains(t, err, "not a valid digest")
	})
	t.Run("redirects without end", func(t *testing.T) {
		n := atomic.Int32{}
		repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, fmt.Sprintf("/v2/x/y/manifests/1?sig=secret%d", n.Add(1)), http.StatusFound)
		})
		_, err := repo.Resolve(t.Context())
		require.ErrorContains(t, err, "stopped after 10 redirects")
		require.NotContains(t, err.Error(), "secret")
		require.Less(t, n.Load(), int32(12))
	})
	t.Run("an error page of any size", func(t *testing.T) {
		repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		})
		_, err := repo.Fetch(t.Context(), descOf(manifest), limit)
		require.ErrorContains(t, err, "400 Bad Request")
	})
	t.Run("an unsupported digest algorithm", func(t *testing.T) {
		repo := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be asked for") })
		_, err := repo.Fetch(t.Context(), ocispec.Descriptor{Digest: "md5:0123", Size: 1}, limit)
		require.ErrorIs(t, err, digest.ErrDigestUnsupported)
	})
	t.Run("a negative size", func(t *testing.T) {
		repo := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("nothing should be asked for") })
		desc := descOf(manifest)
		desc.Size = -1
		_, err := repo.Fetch(t.Context(), desc, limit)
		require.Error(t, err)
	})
}

func TestTruncatedBodiesAreResumedByRange(t *testing.T) {
	var ranges []string
	repo := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		var from int
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		rest := payload[from:]
		w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(payload)-1, len(payload)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(rest[:min(len(rest), 1<<20)]) // the server closes what is shorter than it said
	})
	require.Equal(t, payload, readLayer(t, repo, payloadDesc(), 0))
	require.Greater(t, len(ranges), 2)
	require.Empty(t, ranges[0])
	require.NotEmpty(t, ranges[1])
}

func TestLayersOfOneRegistryAreLimited(t *testing.T) {
	var now, most atomic.Int32
	gate := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-gate
		now.Add(-1)
		_, _ = w.Write(payload)
	}))
	t.Cleanup(s.Close)
	c := registry.New(registry.Config{MaxConcurrency: 2})
	var wg sync.WaitGroup
	for i := range 6 {
		repo := c.Repository(parse(t, fmt.Sprintf("%s/x/y%d:1", strings.TrimPrefix(s.URL, "http://"), i)), nil)
		wg.Go(func() {
			rc, err := repo.Source(event.Scope{}).Open(t.Context(), payloadDesc(), 0)
			if err != nil {
				t.Error(err)
				return
			}
			n, err := io.Copy(io.Discard, rc)
			if err != nil || n != int64(len(payload)) {
				t.Error(n, err)
			}
			_ = rc.Close()
		})
		gate <- struct{}{} // one more may go on
	}
	wg.Wait()
	require.LessOrEqual(t, most.Load(), int32(2))
}
