package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/internal/manifest"
)

var amd64 = platforms.MustParse("linux/amd64")

// server is a registry in this process that counts its requests.
type server struct {
	addr     string
	requests atomic.Int32
	mu       sync.Mutex
	log      []string
	down     atomic.Bool
	hidden   string
}

// hide answers that layers below a path are not there; configs are.
func (s *server) hide(path string) { s.hidden = path }

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{}
	next := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if s.hidden != "" && strings.HasPrefix(r.URL.Path, s.hidden) {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.requests.Add(1)
		s.mu.Lock()
		s.log = append(s.log, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.addr = strings.TrimPrefix(srv.URL, "http://")
	return s
}

// push stores an image or index and returns its digest.
func (s *server) push(t *testing.T, repo string, what remote.Taggable) digest.Digest {
	t.Helper()
	ref, err := name.ParseReference(s.addr + "/" + repo)
	require.NoError(t, err)
	switch what := what.(type) {
	case v1.Image:
		require.NoError(t, remote.Write(ref, what))
	case v1.ImageIndex:
		require.NoError(t, remote.WriteIndex(ref, what))
	default:
		require.NoError(t, remote.Put(ref, what))
	}
	desc, err := remote.Get(ref)
	require.NoError(t, err)
	s.requests.Store(0)
	s.mu.Lock()
	s.log = nil
	s.mu.Unlock()
	return digest.Digest(desc.Digest.String())
}

func imageFor(t *testing.T, platform string, layers int64) v1.Image {
	t.Helper()
	img, err := random.Image(100, layers)
	require.NoError(t, err)
	p := platforms.MustParse(platform)
	cfg, err := img.ConfigFile()
	require.NoError(t, err)
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Variant = p.OS, p.Architecture, p.Variant
	img, err = mutate.ConfigFile(img, cfg)
	require.NoError(t, err)
	return img
}

func indexFor(t *testing.T, all ...string) v1.ImageIndex {
	t.Helper()
	idx := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range all {
		p, err := v1.ParsePlatform(platform)
		require.NoError(t, err)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: imageFor(t, platform, 1), Descriptor: v1.Descriptor{Platform: p},
		})
	}
	return idx
}

// keys returns the keys of an image.
func keys(t *testing.T, ctx context.Context, s *Source, ref string, attrs map[string]string, env source.Env) ([]source.Key, error) {
	t.Helper()
	id, err := s.Parse(Scheme, ref, attrs, amd64)
	if err != nil {
		return nil, err
	}
	inst, err := s.Instance(id, env)
	require.NoError(t, err)
	var all []source.Key
	for n := 0; ; n++ {
		k, done, err := inst.Key(ctx, n)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
		if done {
			return all, nil
		}
	}
}

func TestKeys(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	img := imageFor(t, "linux/amd64", 3)
	dgst := srv.push(t, "a/b:1", img)
	srv.push(t, "a/b:2", img)
	srv.push(t, "a/b:3", mutate.Annotations(img, map[string]string{"k": "v"}).(v1.Image))
	srv.push(t, "copy:1", img)
	srv.push(t, "thief:1", img)

	get := func(ref string, attrs map[string]string) []source.Key {
		all, err := keys(t, ctx, src, srv.addr+"/"+ref, attrs, source.Env{})
		require.NoError(t, err)
		return all
	}
	one := get("a/b:1", nil)
	require.Len(t, one, 2)
	require.Equal(t, dgst.String(), one[0].Pin)
	require.False(t, one[0].Session)
	require.Equal(t, one, get("a/b:2", nil), "another tag of the same image has the same keys")
	require.Equal(t, one, get("a/b:1@"+dgst.String(), nil))

	other := get("a/b:3", nil)
	require.NotEqual(t, one[0].Value, other[0].Value)
	require.Equal(t, one[1].Value, other[1].Value, "the same layers have the same second key")
	for _, k := range slices.Concat(get("copy:1", nil), get("thief:1", nil)) {
		for _, l := range one {
			require.NotEqual(t, l.Value, k.Value, "another repository has no key in common while it may have other layers")
		}
	}

	limited := get("a/b:1", map[string]string{pb.AttrImageLayerLimit: "2"})
	require.NotEqual(t, one[0].Value, limited[0].Value)
	require.NotEqual(t, one[1].Value, limited[1].Value)

	var diffIDs []digest.Digest
	cfg, err := img.ConfigFile()
	require.NoError(t, err)
	for _, id := range cfg.RootFS.DiffIDs {
		diffIDs = append(diffIDs, digest.Digest(id.String()))
	}
	require.Contains(t, one[1].Value, identity.ChainID(diffIDs).String())

	// With the layers here, those who have them too share a key.
	id, err := src.Parse(Scheme, srv.addr+"/a/b:1", nil, amd64)
	require.NoError(t, err)
	blobs := &blob.Sources{}
	inst, err := src.Instance(id, source.Env{Blobs: blobs})
	require.NoError(t, err)
	_, _, err = inst.Key(ctx, 0)
	require.NoError(t, err)
	tree, err := inst.Fetch(ctx)
	require.NoError(t, err)
	require.NoError(t, tree.Realise(ctx, cache.Access{Blobs: blobs}))
	require.NoError(t, tree.Release(ctx))
	one = get("a/b:1", nil)
	require.Len(t, one, 3)
	require.Equal(t, one[2].Value, get("a/b:3", nil)[2].Value)
	copied := get("copy:1", nil)
	require.Len(t, copied, 3)
	require.Equal(t, one[2], copied[2])
	srv.hide("/v2/thief/blobs/") // the config was read before
	stolen := get("thief:1", nil)
	require.Len(t, stolen, 2, "a repository that names the layers without having them has none")
	for _, k := range stolen {
		for _, l := range slices.Concat(one, copied) {
			require.NotEqual(t, l.Value, k.Value)
		}
	}
}

func TestResolveOncePerBuild(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	dgst := srv.push(t, "a/b:1", imageFor(t, "linux/amd64", 1))
	ref := srv.addr + "/a/b:1"

	memo := &source.Memo{}
	op := &pb.SourceOp{Identifier: pb.SchemeImage + ref}
	got, config, err := src.ResolveMeta(ctx, op, amd64, "", source.Env{Memo: memo})
	require.NoError(t, err)
	require.Equal(t, dgst, got)
	require.Contains(t, string(config), "diff_ids")
	require.EqualValues(t, 3, srv.requests.Load(), "%v", srv.log) // name, manifest, config

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, r := range []string{ref, ref + "@" + dgst.String()} {
				if _, err := keys(t, ctx, src, r, nil, source.Env{Memo: memo}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 3, srv.requests.Load(), "%v", srv.log)

	_, err = keys(t, ctx, src, ref, nil, source.Env{Memo: &source.Memo{}})
	require.NoError(t, err)
	require.EqualValues(t, 4, srv.requests.Load(), "the next build asks for the name only: %v", srv.log)
}

func TestResolveShowsAndOffersLayers(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	img := imageFor(t, "linux/amd64", 2)
	srv.push(t, "a/b:1", img)
	var seen []string
	scope := event.NewScope(event.SinkFunc(func(b event.Batch) {
		for _, s := range b.Statuses {
			seen = append(seen, fmt.Sprint(s.ID, " ", s.Completed != nil))
		}
	}), "sha256:v")
	blobs := &blob.Sources{}
	_, err := keys(t, ctx, src, srv.addr+"/a/b:1", nil, source.Env{Scope: scope, Blobs: blobs})
	require.NoError(t, err)
	id := "resolve " + srv.addr + "/a/b:1"
	require.Equal(t, []string{id + " false", id + " true"}, seen)
	layers, err := img.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		dgst, err := l.Digest()
		require.NoError(t, err)
		found := blobs.Find(digest.Digest(dgst.String()))
		require.Len(t, found, 1)
		require.Equal(t, srv.addr+"/a/b", found[0].Repository())
		require.Equal(t, scope.Vertex(), found[0].Scope().Vertex())
	}
}

func TestPlatforms(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	srv.push(t, "multi:1", indexFor(t, "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"))
	single := srv.push(t, "single:1", imageFor(t, "linux/amd64", 1))
	nested := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: indexFor(t, "linux/s390x", "linux/amd64")})
	srv.push(t, "nested:1", nested)
	untold := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: imageFor(t, "linux/amd64", 1)})
	srv.push(t, "untold:1", untold)

	resolve := func(ref, platform string) (*manifest.Image, error) {
		id, err := parse(srv.addr+"/"+ref, nil, platforms.MustParse(platform))
		require.NoError(t, err)
		return src.puller(id, source.Env{}).pull(ctx)
	}
	for _, tc := range []struct{ ref, want, arch string }{
		{"multi:1", "linux/amd64", `"architecture":"amd64"`},
		{"multi:1", "linux/arm64", `"architecture":"arm64"`},
		{"multi:1", "linux/arm/v7", `"variant":"v7"`},
		{"multi:1", "linux/arm/v6", `"variant":"v6"`},
		{"multi:1", "linux/arm/v8", `"variant":"v7"`},
		{"nested:1", "linux/amd64", `"architecture":"amd64"`},
		{"untold:1", "linux/amd64", `"architecture":"amd64"`},
	} {
		img, err := resolve(tc.ref, tc.want)
		require.NoError(t, err, "%v", tc)
		require.Contains(t, string(img.Config), tc.arch)
	}
	for _, ref := range []string{"multi:1", "nested:1", "untold:1"} {
		_, err := resolve(ref, "linux/ppc64le")
		require.EqualError(t, err, "no match for platform in manifest: not found", ref)
		require.ErrorIs(t, err, errdefs.ErrNotFound)
	}
	img, err := resolve("single:1", "linux/arm64")
	require.NoError(t, err, "an image that is no index is taken as it is")
	require.Equal(t, single, img.Root.Digest)
}

// named is a store of named images.
type named map[string]ocispec.Descriptor

func (n named) Get(_ context.Context, ref string) (images.Image, error) {
	d, ok := n[ref]
	if !ok {
		return images.Image{}, errdefs.ErrNotFound
	}
	return images.Image{Name: ref, Target: d}, nil
}

func TestResolveModes(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	reg := registry.New(registry.Config{})
	dgst := srv.push(t, "a/b:1", imageFor(t, "linux/amd64", 1))
	pinned := srv.addr + "/a/b:1@" + dgst.String()
	_, err := keys(t, ctx, New(Config{Cache: st, Registry: reg}), pinned, nil, source.Env{})
	require.NoError(t, err)
	data, err := st.Content().Info(ctx, dgst)
	require.NoError(t, err)
	local := named{srv.addr + "/a/b:1": {Digest: dgst, Size: data.Size, MediaType: ocispec.MediaTypeImageManifest}}

	for _, tc := range []struct {
		name, mode, ref string
		images          Images
		down            bool
		requests        int32
		err             string
	}{
		{name: "default asks the registry", ref: "a/b:1", images: local, requests: 1},
		{name: "default falls back for a name that is here", ref: "a/b:1", images: local, down: true},
		{name: "what was kept for another build is no answer", ref: "a/b@" + dgst.String(), down: true, err: "400 Bad Request"},
		{name: "nor is it in mode local", mode: "local", ref: "a/b@" + dgst.String(), requests: 1},
		{name: "default does not replace an answer", ref: "a/absent:1", images: named{srv.addr + "/a/absent:1": local[srv.addr+"/a/b:1"]}, requests: 1, err: "not found"},
		{name: "pull never uses what is here", mode: "pull", ref: "a/b:1", images: local, down: true, err: "400 Bad Request"},
		{name: "local uses what is here first", mode: "local", ref: "a/b:1", images: local},
		{name: "local asks for the rest", mode: "local", ref: "a/b:1", images: named{}, requests: 1},
		{name: "a digest of one repository is nothing in another", mode: "local", ref: "z/b@" + dgst.String(), requests: 2, err: "not found"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv.requests.Store(0)
			srv.down.Store(tc.down)
			defer srv.down.Store(false)
			src := New(Config{Cache: st, Registry: reg, Images: tc.images})
			_, err := keys(t, ctx, src, srv.addr+"/"+tc.ref, map[string]string{pb.AttrImageResolveMode: tc.mode}, source.Env{})
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, tc.requests, srv.requests.Load())
		})
	}
}

func TestManifestsAreKeptForAWhileOnly(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	dgst := srv.push(t, "a/b:1", imageFor(t, "linux/amd64", 1))
	_, err := keys(t, ctx, src, srv.addr+"/a/b:1", nil, source.Env{})
	require.NoError(t, err)
	_, err = st.Content().Info(ctx, dgst)
	require.NoError(t, err)
	all, err := st.Leases().List(ctx, `labels."`+labelTemporary+`"`)
	require.NoError(t, err)
	require.Len(t, all, 2)
	for _, l := range all {
		until, err := time.Parse(time.RFC3339, l.Labels["containerd.io/gc.expire"])
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(keepTime), until, time.Minute)
	}
}

func TestFetch(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	s := registrytest.Start(t, registrytest.Options{})
	var layers []v1.Layer
	for i := range 3 {
		layers = append(layers, tarLayer(t, fmt.Sprint("file", i), fmt.Sprint("text", i)))
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	require.NoError(t, err)
	ref, err := name.ParseReference(s.Addr + "/a/b:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img))

	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	fetch := func(attrs map[string]string) (*cache.Ref, *blob.Sources) {
		id, err := src.Parse(Scheme, ref.String(), attrs, amd64)
		require.NoError(t, err)
		blobs := &blob.Sources{}
		inst, err := src.Instance(id, source.Env{Blobs: blobs})
		require.NoError(t, err)
		_, _, err = inst.Key(ctx, 0)
		require.NoError(t, err)
		tree, err := inst.Fetch(ctx)
		require.NoError(t, err)
		return tree, blobs
	}
	tree, blobs := fetch(map[string]string{pb.AttrImageRecordType: "frontend"})
	defer func() { require.NoError(t, tree.Release(ctx)) }()
	require.Equal(t, "pulled from "+ref.String(), tree.Description().Text)
	require.Equal(t, cache.Frontend, tree.Description().Type)
	for _, l := range layers {
		dgst, err := l.Digest()
		require.NoError(t, err)
		_, err = st.Content().Info(ctx, digest.Digest(dgst.String()))
		require.ErrorIs(t, err, errdefs.ErrNotFound, "layers stay where they are")
	}
	m, err := tree.Mount(ctx, true, cache.Access{Blobs: blobs})
	require.NoError(t, err)
	dir, unmount, err := snapshot.MountTemp(m)
	require.NoError(t, err)
	for i := range 3 {
		data, err := os.ReadFile(fmt.Sprint(dir, "/file", i))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("text", i), string(data))
	}
	require.NoError(t, unmount())

	limited, _ := fetch(map[string]string{pb.AttrImageLayerLimit: "2"})
	parent := tree.Parent()
	require.Equal(t, parent.ID(), limited.ID(), "the same layers are the same record")
	require.NoError(t, parent.Release(ctx))
	require.NoError(t, limited.Release(ctx))

	require.NoError(t, remote.Write(ref, empty.Image))
	none, _ := fetch(nil)
	require.Nil(t, none, "an image without layers is the empty tree")
}

// tarLayer is a layer of one file.
func tarLayer(t *testing.T, file, text string) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		buf := &bytes.Buffer{}
		w := tar.NewWriter(buf)
		err := errors.Join(
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file, Size: int64(len(text)), Mode: 0o644}),
			func() error { _, err := io.WriteString(w, text); return err }(),
			w.Close())
		return io.NopCloser(buf), err
	})
	require.NoError(t, err)
	return l
}

func TestParseErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		ref   string
		attrs map[string]string
		want  string
	}{
		"no tag":          {ref: "docker.io/library/alpine", want: "object required"},
		"no reference":    {ref: "A/B:", want: "invalid reference format"},
		"wrong mode":      {ref: "a:1", attrs: map[string]string{pb.AttrImageResolveMode: "often"}, want: `invalid image resolve mode "often"`},
		"wrong type":      {ref: "a:1", attrs: map[string]string{pb.AttrImageRecordType: "x"}, want: `invalid record type "x"`},
		"wrong limit":     {ref: "a:1", attrs: map[string]string{pb.AttrImageLayerLimit: "0"}, want: `invalid layer limit "0"`},
		"wrong checksum":  {ref: "a:1", attrs: map[string]string{pb.AttrImageChecksum: "sha256:1"}, want: "invalid image checksum"},
		"wrong algorithm": {ref: "a@md5:00000000000000000000000000000000", want: "unsupported digest algorithm"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{}).Parse(Scheme, tc.ref, tc.attrs, amd64)
			require.ErrorContains(t, err, tc.want)
		})
	}
	id, err := New(Config{}).Parse(Scheme, "alpine:3", map[string]string{"image.future": "x"}, amd64)
	require.NoError(t, err)
	require.Equal(t, "docker-image://docker.io/library/alpine:3", id.String())
}

func TestErrorsOfAttributes(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	dgst := srv.push(t, "a/b:1", imageFor(t, "linux/amd64", 2))
	ref := srv.addr + "/a/b:1"
	_, err := keys(t, ctx, src, ref, map[string]string{pb.AttrImageLayerLimit: "3"}, source.Env{})
	require.EqualError(t, err, "layer limit 3 is greater than the number of layers in the image 2")
	other := digest.FromString("x")
	_, err = keys(t, ctx, src, ref, map[string]string{pb.AttrImageChecksum: other.String()}, source.Env{})
	require.EqualError(t, err, fmt.Sprintf("image digest %s for %s does not match expected checksum %s", dgst, ref, other))
}

// raw is a manifest as it is sent.
type raw struct{ mediaType, data string }

func (r raw) RawManifest() ([]byte, error) { return []byte(r.data), nil }
func (r raw) MediaType() (types.MediaType, error) {
	return types.MediaType(r.mediaType), nil
}

func TestBadImages(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	zero := "sha256:" + strings.Repeat("0", 64)
	desc := func(media, dgst string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":2}`, media, dgst)
	}
	cfg := desc(ocispec.MediaTypeImageConfig, zero)
	for name, tc := range map[string]struct {
		raw
		want string
	}{
		"no JSON":                 {raw{ocispec.MediaTypeImageManifest, `{`}, "unexpected end of JSON"},
		"no config":               {raw{ocispec.MediaTypeImageManifest, `{}`}, "manifest without config"},
		"a bad digest":            {raw{ocispec.MediaTypeImageManifest, `{"config":` + desc("", "sha256:1") + `}`}, "invalid checksum digest length"},
		"a negative size":         {raw{ocispec.MediaTypeImageManifest, `{"config":{"digest":"` + zero + `","size":-1}}`}, "size -1"},
		"both at once":            {raw{"", `{"config":` + cfg + `,"manifests":[]}`}, "manifest and index at once"},
		"types that contradict":   {raw{ocispec.MediaTypeImageIndex, `{"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":` + cfg + `}`}, "but it says"},
		"schema 1":                {raw{images.MediaTypeDockerSchema1Manifest, `{}`}, "unsupported media type"},
		"schema 1 in disguise":    {raw{ocispec.MediaTypeImageManifest, `{"fsLayers":[]}`}, "unsupported media type"},
		"an artifact":             {raw{"application/vnd.oci.artifact.manifest.v1+json", `{}`}, "unsupported media type"},
		"a config that is absent": {raw{ocispec.MediaTypeImageManifest, `{"config":` + cfg + `}`}, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := serveRaw(t, tc.raw)
			_, err := keys(t, ctx, src, addr+"/a/b:1", nil, source.Env{})
			require.ErrorContains(t, err, tc.want)
			var bad *manifest.FormatError
			require.True(t, errors.As(err, &bad) || tc.want == "not found", "%v", err)
		})
	}
}

// serveRaw is a registry with one manifest and nothing else.
func serveRaw(t *testing.T, r raw) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.Contains(req.URL.Path, "/manifests/") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", r.mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromString(r.data).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(r.data)))
		if req.Method == http.MethodGet {
			_, _ = io.WriteString(w, r.data)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestNestingIsBounded(t *testing.T) {
	ctx, st := t.Context(), newCache(t)
	srv := newServer(t)
	src := New(Config{Cache: st, Registry: registry.New(registry.Config{})})
	idx := indexFor(t, "linux/amd64")
	for range 5 {
		idx = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: idx})
	}
	srv.push(t, "deep:1", idx)
	_, err := keys(t, ctx, src, srv.addr+"/deep:1", nil, source.Env{})
	require.ErrorContains(t, err, "too many manifests")
}
