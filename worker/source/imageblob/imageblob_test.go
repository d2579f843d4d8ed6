//go:build linux

package imageblob

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/session"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

func newSource(t *testing.T) *Source {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return New(Config{Cache: m, Registry: registry.New(registry.Config{}), Sessions: session.NewManager()})
}

func (s *Source) fetch(t *testing.T, scheme, ref string, attrs map[string]string, ids ...string) (source.Key, *cache.Ref, error) {
	t.Helper()
	id, err := s.Parse(scheme, ref, attrs, ocispec.Platform{})
	require.NoError(t, err)
	inst, err := s.Instance(id, source.Env{Sessions: session.IDs(ids)})
	require.NoError(t, err)
	key, done, err := inst.Key(t.Context(), 0)
	if err != nil {
		return key, nil, err
	}
	require.True(t, done)
	ref2, err := inst.Fetch(t.Context())
	return key, ref2, err
}

// only returns the one file of a tree.
func only(t *testing.T, ref *cache.Ref) (string, os.FileInfo) {
	t.Helper()
	m, err := ref.Mount(t.Context(), true, cache.Access{})
	require.NoError(t, err)
	dir, release, err := snapshot.MountTemp(m)
	require.NoError(t, err)
	defer func() { require.NoError(t, release()) }()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	st, err := entries[0].Info()
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, st.Name()))
	require.NoError(t, err)
	return string(data), st
}

func TestABlobOfARepositoryIsAFile(t *testing.T) {
	s := newSource(t)
	var denied atomic.Bool
	next := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if denied.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	repo, err := name.NewRepository(host + "/a/b")
	require.NoError(t, err)
	text := "content of a blob"
	require.NoError(t, remote.WriteLayer(repo, static.NewLayer([]byte(text), "text/plain")))
	dgst := digest.FromString(text)
	ref := repo.String() + "@" + dgst.String()

	key, tree, err := s.fetch(t, SchemeImage, ref, nil)
	require.NoError(t, err)
	require.Equal(t, dgst.String(), key.Pin)
	require.False(t, key.Session)
	data, st := only(t, tree)
	require.Equal(t, text, data)
	require.Equal(t, dgst.Encoded(), st.Name())
	require.Equal(t, os.FileMode(0o600), st.Mode())
	require.Zero(t, st.ModTime().Unix())
	require.Equal(t, cache.Regular, tree.Description().Type)
	require.NoError(t, tree.Release(t.Context()))

	other, tree, err := s.fetch(t, SchemeImage, ref, map[string]string{
		pb.AttrHTTPFilename: "f", pb.AttrHTTPPerm: "04755", pb.AttrHTTPUID: "7", pb.AttrHTTPGID: "8",
		pb.AttrImageRecordType: "internal",
	})
	require.NoError(t, err)
	require.NotEqual(t, key.Value, other.Value)
	_, st = only(t, tree)
	require.Equal(t, "f", st.Name())
	require.Equal(t, os.FileMode(0o755)|os.ModeSetuid, st.Mode())
	sys := st.Sys().(*syscall.Stat_t)
	require.Equal(t, []uint32{7, 8}, []uint32{sys.Uid, sys.Gid})
	require.Equal(t, cache.Internal, tree.Description().Type)
	require.NoError(t, tree.Release(t.Context()))

	_, _, err = s.fetch(t, SchemeImage, repo.String()+"@"+digest.FromString("absent").String(), nil)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	denied.Store(true)
	_, _, err = s.fetch(t, SchemeImage, ref, nil)
	require.ErrorContains(t, err, "403", "the registry is asked though the blob is known")
}

func TestABlobOfALayoutIsAFile(t *testing.T) {
	s := newSource(t)
	dir := t.TempDir()
	store, err := local.NewStore(dir)
	require.NoError(t, err)
	text := strings.Repeat("content", 1<<20)
	dgst := digest.FromString(text)
	folder := filepath.Join(dir, "blobs", "sha256")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(folder, dgst.Encoded()), []byte(text), 0o600))
	wrong := digest.FromString("wrong")
	require.NoError(t, os.WriteFile(filepath.Join(folder, wrong.Encoded()), []byte("right"), 0o600))
	id := sessiontest.Join(t, s.cfg.Sessions, nil, sessioncontent.NewProvider(map[string]content.Store{"oci:lay": store})).ID()
	attrs := map[string]string{pb.AttrOCIStore: "lay", pb.AttrHTTPFilename: "f"}

	key, tree, err := s.fetch(t, SchemeLayout, "x@"+dgst.String(), attrs, id)
	require.NoError(t, err)
	require.True(t, key.Session, "nobody else gets it by its digest")
	data, _ := only(t, tree)
	require.Equal(t, text, data)
	require.NoError(t, tree.Release(t.Context()))

	_, _, err = s.fetch(t, SchemeLayout, "x@"+wrong.String(), attrs, id)
	require.ErrorContains(t, err, "bytes do not match the digest")
	_, _, err = s.fetch(t, SchemeLayout, "x@"+digest.FromString("absent").String(), attrs, id)
	require.ErrorIs(t, err, errdefs.ErrNotFound)
	left, err := s.cfg.Cache.Leases().List(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestParseErrors(t *testing.T) {
	zero := "@sha256:" + digest.FromString("").Encoded()
	for name, tc := range map[string]struct {
		scheme, ref string
		attrs       map[string]string
		want        string
	}{
		"no digest":    {ref: "a:1", want: `blob reference "a:1" has no digest`},
		"a tag":        {ref: "a:1" + zero, want: "has a tag"},
		"no reference": {ref: "A/B:", want: "invalid reference format"},
		"no store":     {scheme: SchemeLayout, ref: "a" + zero, want: "oci.store is required"},
		"a path":       {ref: "a" + zero, attrs: map[string]string{pb.AttrHTTPFilename: "../x"}, want: `invalid http.filename "../x"`},
		"a wrong mode": {ref: "a" + zero, attrs: map[string]string{pb.AttrHTTPPerm: "0888"}, want: `invalid http.perm "0888"`},
		"a wrong id":   {ref: "a" + zero, attrs: map[string]string{pb.AttrHTTPUID: "4294967295"}, want: `invalid http.uid "4294967295"`},
		"a wrong type": {ref: "a" + zero, attrs: map[string]string{pb.AttrImageRecordType: "x"}, want: `invalid record type "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.scheme == "" {
				tc.scheme = SchemeImage
			}
			_, err := New(Config{}).Parse(tc.scheme, tc.ref, tc.attrs, ocispec.Platform{})
			require.ErrorContains(t, err, tc.want)
		})
	}
}
