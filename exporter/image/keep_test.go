//go:build linux

package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/exporter"
	"github.com/openbuildkit/buildkit/exporter/image"
	"github.com/openbuildkit/buildkit/exporter/internal/exportertest"
)

// containerd is what a worker on containerd has: content, images and snapshots in one database.
type containerd struct {
	t       *testing.T
	db      *metadata.DB
	images  images.Store
	content content.Store
	trees   snapshots.Snapshotter
	apply   diff.Applier
}

func startContainerd(t *testing.T) *containerd {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	require.NoError(t, err)
	sn, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	require.NoError(t, err)
	file, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(sn.Close(), file.Close())) })
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{"native": sn})
	require.NoError(t, db.Init(t.Context()))
	return &containerd{
		t: t, db: db, images: metadata.NewImageStore(db), content: db.ContentStore(), trees: db.Snapshotter("native"),
		apply: apply.NewFileSystemApplier(db.ContentStore()),
	}
}

func (*containerd) Snapshotter() string { return "native" }

func (c *containerd) Unpack(ctx context.Context, layers []image.UnpackLayer) error {
	var all []rootfs.Layer
	for _, l := range layers {
		all = append(all, rootfs.Layer{
			Blob: l.Blob,
			Diff: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID},
		})
	}
	_, err := rootfs.ApplyLayers(ctx, all, c.trees, c.apply)
	return err
}

// elsewhere has the blobs of the cache, as a registry would: nothing of them is in the worker's own
// store before it is asked for.
type elsewhere struct {
	from, to content.Store
	fetched  atomic.Int64
}

func (e *elsewhere) FetchBlob(ctx context.Context, desc ocispec.Descriptor, _ cache.Access) error {
	e.fetched.Add(1)
	ra, err := e.from.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	return content.WriteBlob(ctx, e.to, "fetch-"+desc.Digest.String(), content.NewReader(ra), desc)
}

// keep exports a result to the worker and returns the response.
func (c *containerd) keep(b *exportertest.Bench, attrs map[string]string, res *exporter.Result) (map[string]string, *elsewhere) {
	c.t.Helper()
	src := &elsewhere{from: b.Cache.Content(), to: c.content}
	store := &image.Store{Content: c.content, Leases: metadata.NewLeaseManager(c.db), Blobs: src, Images: c.images, Unpacker: c}
	inst, err := image.New(store, registry.New(registry.Config{})).Resolve(attrs, 30)
	require.NoError(c.t, err)
	resp, err := inst.Export(c.ctx(), res, b.Env(0))
	require.NoError(c.t, err)
	_, err = c.db.GarbageCollect(c.ctx())
	require.NoError(c.t, err)
	return resp, src
}

func (c *containerd) ctx() context.Context {
	return namespaces.WithNamespace(c.t.Context(), "test")
}

// names returns the digests that names stand for.
func (c *containerd) names() map[string]string {
	c.t.Helper()
	all, err := c.images.List(c.ctx())
	require.NoError(c.t, err)
	names := map[string]string{}
	for _, img := range all {
		names[img.Name] = img.Target.Digest.String()
	}
	return names
}

func TestImagesGetTheirNamesInTheWorker(t *testing.T) {
	for name, tc := range map[string]struct {
		attrs map[string]string
		// want are the names, with D for the digest, and those of the response.
		want     []string
		response string
	}{
		"one":               {map[string]string{"name": "example.org/a:1"}, []string{"example.org/a:1"}, "example.org/a:1"},
		"two":               {map[string]string{"name": "a:1, b:2"}, []string{"a:1", "b:2"}, "a:1,b:2"},
		"of the result":     {map[string]string{"name": "*"}, []string{"result:1"}, "result:1"},
		"with the digest":   {map[string]string{"name": "a:1,b@x", "name-canonical": ""}, []string{"a:1", "a:1@D", "b@x"}, "a:1,b@x"},
		"a dangling one":    {map[string]string{"name": "a:1", "dangling-name-prefix": "dang"}, []string{"a:1", "dang@D"}, "a:1,dang@D"},
		"only a dangling":   {map[string]string{"dangling-name-prefix": "dang"}, []string{"dang@D"}, "dang@D"},
		"none but dangling": {map[string]string{"dangling-name-prefix": "dang", "danging-name-empty-only": "true"}, []string{"dang@D"}, "dang@D"},
		"no dangling one":   {map[string]string{"name": "a:1", "dangling-name-prefix": "dang", "danging-name-empty-only": "true"}, []string{"a:1"}, "a:1"},
		"none":              {nil, nil, ""},
		"not kept":          {map[string]string{"name": "a:1", "store": "false"}, nil, "a:1"},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := exportertest.New(t, false), startContainerd(t)
			resp, _ := c.keep(b, tc.attrs, &exporter.Result{
				Ref: oneFile(t, b), Metadata: map[string][]byte{exporter.KeyImageName: []byte("result:1")},
			})
			dgst := resp[exporter.KeyDigest]
			insert := func(s string) string {
				if n := len(s); n > 0 && s[n-1] == 'D' {
					return s[:n-1] + dgst
				}
				return s
			}
			want := map[string]string{}
			for _, n := range tc.want {
				want[insert(n)] = dgst
				require.Contains(t, b.Completed(), "naming to "+insert(n))
			}
			require.Equal(t, want, c.names())
			require.Equal(t, insert(tc.response), resp[exporter.KeyImageName])
		})
	}
}

func TestANameMovesToTheNewImage(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	first, _ := c.keep(b, map[string]string{"name": "a:1"}, &exporter.Result{})
	second, _ := c.keep(b, map[string]string{"name": "a:1"}, &exporter.Result{Ref: oneFile(t, b)})
	require.NotEqual(t, first[exporter.KeyDigest], second[exporter.KeyDigest])
	require.Equal(t, map[string]string{"a:1": second[exporter.KeyDigest]}, c.names())
	_, err := c.content.Info(c.ctx(), digest.Digest(first[exporter.KeyDigest]))
	require.ErrorIs(t, err, errdefs.ErrNotFound, "the old one is collected")
}

func TestTheTimeOfARecordIsTheEpoch(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	c.keep(b, map[string]string{"name": "a:1", "source-date-epoch": "1767225600"}, &exporter.Result{})
	got, err := c.images.Get(c.ctx(), "a:1")
	require.NoError(t, err)
	require.EqualValues(t, 1767225600, got.CreatedAt.Unix())
}

func TestWhatIsKeptIsWholeUnlessAskedOtherwise(t *testing.T) {
	b := exportertest.New(t, false)
	res := &exporter.Result{Ref: b.Tree(oneFile(t, b), "RUN", func(dir string) { require.NoError(t, os.Remove(dir+"/x")) })}
	whole := func(c *containerd) error {
		img, err := c.images.Get(c.ctx(), "a:1")
		require.NoError(t, err)
		return images.Walk(c.ctx(), images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			if _, err := content.ReadBlob(ctx, c.content, desc); err != nil {
				return nil, err
			}
			return images.Children(ctx, c.content, desc)
		}), img.Target)
	}
	c := startContainerd(t)
	_, src := c.keep(b, map[string]string{"name": "a:1"}, res)
	require.NoError(t, whole(c))
	require.EqualValues(t, 2, src.fetched.Load(), "layers were elsewhere")

	c = startContainerd(t)
	_, src = c.keep(b, map[string]string{"name": "a:1", "unsafe-internal-store-allow-incomplete": "true"}, res)
	require.ErrorIs(t, whole(c), errdefs.ErrNotFound)
	require.Zero(t, src.fetched.Load())
}

func TestAManifestThatIsHereAlreadyKeepsItsLayers(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	attrs := map[string]string{"name": "a:1", "source-date-epoch": "1767225600"}
	res := &exporter.Result{Ref: oneFile(t, b)}
	resp, _ := c.keep(b, attrs, res)
	img, err := c.images.Get(c.ctx(), "a:1")
	require.NoError(t, err)
	manifest, err := content.ReadBlob(c.ctx(), c.content, img.Target)
	require.NoError(t, err)

	other := startContainerd(t)
	require.NoError(t, content.WriteBlob(other.ctx(), other.content, "pulled", bytes.NewReader(manifest), img.Target))
	again, _ := other.keep(b, attrs, res)
	require.Equal(t, resp[exporter.KeyDigest], again[exporter.KeyDigest])
	children, err := images.Children(other.ctx(), other.content, img.Target)
	require.NoError(t, err)
	require.Len(t, children, 2)
	for _, child := range children {
		_, err := other.content.Info(other.ctx(), child.Digest)
		require.NoError(t, err, child.MediaType)
	}
}

func TestTheImageOfThisMachineIsUnpacked(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	mine := b.Tree(oneFile(t, b), "RUN", func(dir string) { require.NoError(t, os.WriteFile(dir+"/y", []byte("mine"), 0o600)) })
	other := b.Tree(nil, "RUN", func(dir string) { require.NoError(t, os.WriteFile(dir+"/z", []byte("other"), 0o600)) })
	res := &exporter.Result{Refs: map[string]*cache.Ref{"other": other, "mine": mine}, Metadata: map[string][]byte{
		exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"other","Platform":{"os":"linux","architecture":"arm64"}},{"ID":"mine","Platform":{"os":"linux","architecture":"amd64"}}]}`),
	}}
	c.keep(b, map[string]string{"name": "a:1,b:1", "unpack": "true"}, res)
	require.Contains(t, b.Completed(), "unpacking to a:1")

	var kept []string
	require.NoError(t, c.trees.Walk(c.ctx(), func(_ context.Context, info snapshots.Info) error {
		kept = append(kept, info.Name)
		return nil
	}))
	layers, err := mine.Layers(t.Context(), blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, err)
	want := identity.ChainIDs([]digest.Digest{layers[0].DiffID, layers[1].DiffID})
	require.ElementsMatch(t, []string{want[0].String(), want[1].String()}, kept, "kept by the image, and nothing else is")

	require.NoError(t, c.images.Delete(c.ctx(), "a:1"))
	require.NoError(t, c.images.Delete(c.ctx(), "b:1"))
	_, err = c.db.GarbageCollect(c.ctx())
	require.NoError(t, err)
	_, err = c.trees.Stat(c.ctx(), want[1].String())
	require.ErrorIs(t, err, errdefs.ErrNotFound, "it goes with the image")
}

func TestAnImageForNoPlatformOfThisMachineIsNotUnpacked(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	res := &exporter.Result{Refs: map[string]*cache.Ref{"other": oneFile(t, b)}, Metadata: map[string][]byte{
		exporter.KeyPlatforms: []byte(`{"Platforms":[{"ID":"other","Platform":{"os":"linux","architecture":"s390x"}}]}`),
	}}
	c.keep(b, map[string]string{"name": "a:1", "unpack": "true"}, res)
	require.Equal(t, []string{"image is not unpacked: none of its platforms is linux/amd64"}, b.Warnings())
}

func TestAnImageWithoutLayersIsUnpackedToNothing(t *testing.T) {
	b, c := exportertest.New(t, false), startContainerd(t)
	c.keep(b, map[string]string{"name": "a:1", "unpack": "true"}, &exporter.Result{})
	require.Contains(t, b.Completed(), "unpacking to a:1")
	require.Len(t, c.names(), 1)
}
