package ocilayout

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker/source"
)

var amd64 = platforms.MustParse("linux/amd64")

// bench is a daemon's side with one source.
type bench struct {
	t        *testing.T
	cache    *cache.Manager
	sessions *session.Manager
	src      *Source
}

func newBench(t *testing.T) *bench {
	t.Helper()
	m, err := cache.Open(t.Context(), cache.Config{Root: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	b := &bench{t: t, cache: m, sessions: session.NewManager()}
	b.src = New(Config{Cache: m, Sessions: b.sessions})
	return b
}

// client offers a folder as the store oci:name.
func (b *bench) client(name, dir string) string {
	b.t.Helper()
	store, err := local.NewStore(dir)
	require.NoError(b.t, err)
	return sessiontest.Join(b.t, b.sessions, nil, sessioncontent.NewProvider(map[string]content.Store{StorePrefix + name: store})).ID()
}

// imageOf is an image of files, one a layer.
func imageOf(t *testing.T, platform string, files ...string) v1.Image {
	t.Helper()
	img := empty.Image
	for _, text := range files {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			buf := &bytes.Buffer{}
			w := tar.NewWriter(buf)
			_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: text, Size: int64(len(text)), Mode: 0o644})
			_, _ = io.WriteString(w, text)
			return io.NopCloser(buf), w.Close()
		})
		require.NoError(t, err)
		img, err = mutate.AppendLayers(img, l)
		require.NoError(t, err)
	}
	cfg, err := img.ConfigFile()
	require.NoError(t, err)
	cfg = cfg.DeepCopy()
	p := platforms.MustParse(platform)
	cfg.OS, cfg.Architecture = p.OS, p.Architecture
	img, err = mutate.ConfigFile(img, cfg)
	require.NoError(t, err)
	return img
}

// write makes a layout of an index of images and returns the digests of index and images.
func write(t *testing.T, all ...v1.Image) (dir string, dgsts []digest.Digest) {
	t.Helper()
	idx := v1.ImageIndex(empty.Index)
	for _, img := range all {
		cfg, err := img.ConfigFile()
		require.NoError(t, err)
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture}},
		})
	}
	dir = t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	require.NoError(t, err)
	require.NoError(t, path.AppendIndex(idx))
	h, err := idx.Digest()
	require.NoError(t, err)
	dgsts = []digest.Digest{digest.Digest(h.String())}
	for _, img := range all {
		h, err := img.Digest()
		require.NoError(t, err)
		dgsts = append(dgsts, digest.Digest(h.String()))
	}
	return dir, dgsts
}

// pull resolves and fetches an image.
func (b *bench) pull(ref string, attrs map[string]string, ids ...string) (keys []string, tree *cache.Ref, blobs *blob.Sources, err error) {
	b.t.Helper()
	id, err := b.src.Parse(Scheme, ref, attrs, amd64)
	require.NoError(b.t, err)
	blobs = &blob.Sources{}
	inst, err := b.src.Instance(id, source.Env{Sessions: session.IDs(ids), Blobs: blobs, Memo: &source.Memo{}})
	require.NoError(b.t, err)
	for n, done := 0, false; !done; n++ {
		var k source.Key
		if k, done, err = inst.Key(b.t.Context(), n); err != nil {
			return nil, nil, nil, err
		}
		require.Contains(b.t, ref, k.Pin)
		keys = append(keys, k.Value)
	}
	tree, err = inst.Fetch(b.t.Context())
	return keys, tree, blobs, err
}

func (b *bench) names(tree *cache.Ref, blobs *blob.Sources) (names []string) {
	b.t.Helper()
	m, err := tree.Mount(b.t.Context(), true, cache.Access{Blobs: blobs})
	require.NoError(b.t, err)
	dir, release, err := snapshot.MountTemp(m)
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, release()) }()
	entries, err := os.ReadDir(dir)
	require.NoError(b.t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAnImageOfALayoutIsRead(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	dir, dgsts := write(t, imageOf(t, "linux/arm64", "arm"), imageOf(t, "linux/amd64", "a", "b", "c"))
	id := b.client("lay", dir)
	attrs := map[string]string{pb.AttrOCISession: id, pb.AttrOCIStore: "lay"}

	keys, tree, blobs, err := b.pull("name@"+dgsts[0].String(), attrs)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, "pulled from docker.io/library/name@"+dgsts[0].String(), tree.Description().Text)
	layers, err := tree.Layers(ctx, blob.CompressionOpt{}, cache.Access{Blobs: blobs})
	require.NoError(t, err)
	require.Len(t, layers, 3)
	for _, l := range layers {
		_, err := b.cache.Content().Info(ctx, l.Descriptor.Digest)
		require.ErrorIs(t, err, errdefs.ErrNotFound, "layers stay where they are")
	}
	require.Equal(t, []string{"a", "b", "c"}, b.names(tree, blobs))
	require.NoError(t, tree.Release(ctx))

	again, tree, _, err := b.pull("name@"+dgsts[0].String(), attrs)
	require.NoError(t, err)
	require.Len(t, again, 2, "the layers are here and have a key of their own")
	require.Equal(t, keys[0], again[0])
	require.NoError(t, tree.Release(ctx))

	direct, tree, blobs, err := b.pull("lay:tag@"+dgsts[2].String(), nil, "gone", id)
	require.NoError(t, err, "the store is the name if none is named, and any session of the build will do")
	require.NotEqual(t, keys[0], direct[0])
	require.Equal(t, again[1], direct[1])
	require.Equal(t, []string{"a", "b", "c"}, b.names(tree, blobs))
	require.NoError(t, tree.Release(ctx))

	attrs[pb.AttrOCILayerLimit] = "2"
	limited, tree, blobs, err := b.pull("name@"+dgsts[0].String(), attrs)
	require.NoError(t, err)
	require.NotContains(t, limited, keys[0])
	require.Equal(t, []string{"a", "b"}, b.names(tree, blobs))
	require.NoError(t, tree.Release(ctx))
	attrs[pb.AttrOCILayerLimit] = "4"
	_, _, _, err = b.pull("name@"+dgsts[0].String(), attrs)
	require.EqualError(t, err, "layer limit 4 is greater than the number of layers in the image 3")

	op := &pb.SourceOp{Identifier: "oci-layout://name@" + dgsts[0].String(), Attrs: map[string]string{pb.AttrOCIStore: "lay"}}
	env := source.Env{Sessions: session.IDs{id}}
	got, config, err := b.src.ResolveMeta(ctx, op, platforms.MustParse("linux/arm64"), "", env)
	require.NoError(t, err)
	require.Equal(t, dgsts[0], got)
	require.Contains(t, string(config), `"architecture":"arm64"`)
	_, _, err = b.src.ResolveMeta(ctx, op, platforms.MustParse("linux/s390x"), "", env)
	require.EqualError(t, err, "no match for platform in manifest: not found")
}

func TestAClientWithoutTheLayersGetsNothingForTheirDigests(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	img := imageOf(t, "linux/amd64", "secret")
	dir, dgsts := write(t, img)
	attrs := map[string]string{pb.AttrOCIStore: "lay"}
	_, tree, blobs, err := b.pull("name@"+dgsts[0].String(), attrs, b.client("lay", dir))
	require.NoError(t, err)
	require.Equal(t, []string{"secret"}, b.names(tree, blobs))

	known, _ := write(t, img)
	layers, err := tree.Layers(ctx, blob.CompressionOpt{}, cache.Access{Blobs: blobs})
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(known, "blobs", "sha256", layers[0].Descriptor.Digest.Encoded())))
	_, _, _, err = b.pull("name@"+dgsts[0].String(), attrs, b.client("lay", known))
	require.ErrorContains(t, err, "layer "+layers[0].Descriptor.Digest.String())
	require.ErrorContains(t, err, "not found")
	require.NoError(t, tree.Release(ctx))
}

func TestBadStores(t *testing.T) {
	b := newBench(t)
	img := imageOf(t, "linux/amd64", "a")
	dir, dgsts := write(t, img)
	file := func(d digest.Digest) string { return filepath.Join(dir, "blobs", "sha256", d.Encoded()) }
	good := b.client("lay", dir)
	other := b.client("other", dir)
	none := sessiontest.Join(t, b.sessions, nil).ID()
	absent := digest.FromString("absent")
	big := digest.FromString("big")
	require.NoError(t, os.WriteFile(file(big), make([]byte, 5<<20), 0o600))
	wrong := digest.FromString("wrong")
	require.NoError(t, os.WriteFile(file(wrong), []byte("{}"), 0o600))
	for name, tc := range map[string]struct {
		dgst    digest.Digest
		session string
		want    string
	}{
		"no such digest":       {absent, good, "oci-layout store lay: "},
		"a manifest too large": {big, good, "more than 4194304 bytes"},
		"other bytes":          {wrong, good, "the client sends sha256:"},
		"no such store":        {dgsts[0], other, `unknown content store "oci:lay"`},
		"no store at all":      {dgsts[0], none, "oci-layout store lay: "},
		"no session":           {dgsts[0], "", "no active sessions"},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			if tc.session != "" {
				ids = append(ids, tc.session)
			}
			_, _, _, err := b.pull("name@"+tc.dgst.String(), map[string]string{pb.AttrOCIStore: "lay"}, ids...)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestParseErrors(t *testing.T) {
	zero := "@sha256:" + digest.FromString("").Encoded()
	for name, tc := range map[string]struct {
		ref   string
		attrs map[string]string
		want  string
	}{
		"no digest":    {ref: "name:tag", want: `oci-layout reference "name:tag" has no digest`},
		"no reference": {ref: "A/B:", want: "invalid reference format"},
		"wrong limit":  {ref: "name" + zero, attrs: map[string]string{pb.AttrOCILayerLimit: "-1"}, want: `invalid layer limit "-1"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{}).Parse(Scheme, tc.ref, tc.attrs, amd64)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestALayerEndsWithItsBuild(t *testing.T) {
	b := newBench(t)
	dir, dgsts := write(t, imageOf(t, "linux/amd64", "a"))
	_, tree, blobs, err := b.pull("name@"+dgsts[0].String(), map[string]string{pb.AttrOCIStore: "lay"}, b.client("lay", dir))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, tree.Realise(ctx, cache.Access{Blobs: blobs}), context.Canceled)
	require.NoError(t, tree.Release(t.Context()))
}
