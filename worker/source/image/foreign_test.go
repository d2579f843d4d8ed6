package image

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

// elsewhere serves layers at /digest, and remembers what it was asked for.
type elsewhere struct {
	url    string
	layers []v1.Layer
	mu     sync.Mutex
	asked  []string
}

func newElsewhere(t *testing.T, layers ...v1.Layer) *elsewhere {
	t.Helper()
	e := &elsewhere{layers: layers}
	srv := httptest.NewServer(e)
	t.Cleanup(srv.Close)
	e.url = srv.URL
	return e
}

func (e *elsewhere) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.asked = append(e.asked, r.URL.Path)
	e.mu.Unlock()
	for _, l := range e.layers {
		if dgst, err := l.Digest(); err != nil || "/"+dgst.String() != r.URL.Path {
			continue
		}
		rc, err := l.Compressed()
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.Copy(w, rc)
		_ = rc.Close()
		return
	}
	w.WriteHeader(http.StatusNotFound)
}

func TestOnlyForeignLayersAreFetchedFromTheURLsOfAManifest(t *testing.T) {
	ctx, st, s := t.Context(), newCache(t), newServer(t)
	ordinary, foreign := tarLayer(t, "ordinary", "1"), tarLayer(t, "foreign", "2")
	e := newElsewhere(t, ordinary, foreign)
	add := func(l v1.Layer, mediaType types.MediaType) mutate.Addendum {
		dgst, err := l.Digest()
		require.NoError(t, err)
		return mutate.Addendum{Layer: l, MediaType: mediaType, URLs: []string{e.url + "/" + dgst.String()}}
	}
	img, err := mutate.Append(empty.Image, add(ordinary, types.DockerLayer), add(foreign, types.DockerForeignLayer))
	require.NoError(t, err)
	s.push(t, "a/b:1", img)
	dgst, err := foreign.Digest()
	require.NoError(t, err)
	s.hide("/v2/a/b/blobs/" + dgst.String())

	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	id, err := src.Parse(Scheme, s.addr+"/a/b:1", nil, amd64)
	require.NoError(t, err)
	blobs := &blob.Sources{}
	inst, err := src.Instance(id, source.Env{Blobs: blobs})
	require.NoError(t, err)
	_, _, err = inst.Key(ctx, 0)
	require.NoError(t, err)
	tree, err := inst.Fetch(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Release(ctx)) }()
	m, err := tree.Mount(ctx, true, cache.Access{Blobs: blobs})
	require.NoError(t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(t, err)
	for file, want := range map[string]string{"ordinary": "1", "foreign": "2"} {
		got, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.NoError(t, unmount())
	require.Equal(t, []string{"/" + dgst.String()}, e.asked)
}
