package cache_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

func TestLayersHaveTheFormAskedFor(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		base := e.image(r, "a", "b")
		require.NoError(t, base.Realise(e.ctx, r.access()))
		top := e.step(base, "c", "c")
		require.NoError(t, top.Describe(cache.Description{Text: "RUN make"}))

		for i, tt := range []struct {
			opt    blob.CompressionOpt
			types  []string
			remote int // how many layers have been read from the remote so far
		}{
			{blob.CompressionOpt{}, []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip}, 2},
			{blob.CompressionOpt{DockerTypes: true}, []string{blob.DockerLayerGzip, blob.DockerLayerGzip, blob.DockerLayerGzip}, 2},
			{blob.CompressionOpt{Type: blob.Uncompressed}, []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayer}, 2},
			{blob.CompressionOpt{Type: blob.Uncompressed, Force: true}, []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayer}, 2},
			{blob.CompressionOpt{Type: blob.EStargz, Force: true}, []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip}, 2},
			{blob.CompressionOpt{Type: blob.Zstd, Force: true}, []string{ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayerZstd}, 2},
			// What was made for others changes nothing.
			{blob.CompressionOpt{Type: blob.Zstd}, []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd}, 2},
		} {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				layers, err := top.Layers(e.ctx, tt.opt, r.access())
				require.NoError(t, err)
				require.Len(t, r.opened, tt.remote)
				require.Len(t, layers, 3)
				require.Equal(t, "pulled a", layers[0].Description)
				require.Equal(t, "RUN make", layers[2].Description)
				for j, l := range layers {
					require.Equal(t, tt.types[j], l.Descriptor.MediaType)
					data := e.blobBytes(l.Descriptor)
					d, err := blob.NewDecompressor(bytes.NewReader(data))
					require.NoError(t, err)
					plain, err := io.ReadAll(d)
					require.NoError(t, err)
					require.Equal(t, l.DiffID, digest.FromBytes(plain))
				}
				again, err := top.Layers(e.ctx, tt.opt, cache.Access{})
				require.NoError(t, err)
				require.Equal(t, layers, again)
			})
		}
		e.release(base, top)
	})
}

func TestLazyLayersStayLazyIfTheirFormWillDo(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a", "b")
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, r.access())
	require.NoError(t, err)
	require.Len(t, layers, 2)
	require.Empty(t, r.opened)
	e.release(ref)
}

func TestLayersAreToldAsTheyAreKnownAndNoneIsMadeForIt(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	base := e.image(r, "a", "b")
	cached := e.KnownLayers(base.ID())
	require.Len(t, cached, 2, "lazy ones are known")
	require.Empty(t, r.opened)
	require.NoError(t, base.Realise(e.ctx, r.access()))
	mid := e.step(base, "c", "c")
	top := e.step(mid, "d", "d")
	other := e.merge(mid, top)
	for _, ref := range []*cache.Ref{mid, top, other} {
		require.Nil(t, e.KnownLayers(ref.ID()), "nobody has asked for them as blobs")
	}
	stored := e.stored()
	retimed, err := top.LayersAt(e.ctx, blob.CompressionOpt{}, at(1), r.access())
	require.NoError(t, err)
	require.NotEqual(t, stored, e.stored())
	require.Equal(t, append(cached[:2:2], retimed[2].Descriptor, retimed[3].Descriptor), e.KnownLayers(top.ID()), "with other times if there are no others")

	zstd, err := top.Layers(e.ctx, blob.CompressionOpt{Type: blob.Zstd}, r.access())
	require.NoError(t, err)
	_, err = top.Layers(e.ctx, blob.CompressionOpt{Type: blob.Gzip, Force: true}, r.access())
	require.NoError(t, err)
	stored = e.stored()
	all := e.KnownLayers(top.ID())
	require.Len(t, all, 4)
	require.Equal(t, cached, all[:2], "as they came")
	require.Equal(t, []ocispec.Descriptor{zstd[2].Descriptor, zstd[3].Descriptor}, all[2:], "the form that was made first")
	require.Equal(t, all[:3], e.KnownLayers(mid.ID()))
	require.Equal(t, append(all[:3:3], all...), e.KnownLayers(other.ID()))
	require.Equal(t, stored, e.stored())
	require.Nil(t, e.KnownLayers("no such record"))
	e.release(base, mid, top, other)
}

func TestALayerThatHasGoneIsMadeAgain(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "x", "x")
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, err)
	require.NoError(t, e.Content().Delete(e.ctx, layers[0].Descriptor.Digest))
	again, err := ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, err)
	require.Equal(t, layers, again)
	e.blobBytes(again[0].Descriptor)
	e.release(ref)
}

// only returns the layer of a tree that has one.
func (e *env) only(ref *cache.Ref, opt blob.CompressionOpt, acc cache.Access) cache.Layer {
	e.t.Helper()
	layers, err := ref.Layers(e.ctx, opt, acc)
	require.NoError(e.t, err)
	require.Len(e.t, layers, 1)
	return layers[0]
}

// stored returns what is in the content store by digest.
func (e *env) stored() map[digest.Digest]int64 {
	e.t.Helper()
	all := map[digest.Digest]int64{}
	require.NoError(e.t, e.Content().Walk(e.ctx, func(info content.Info) error {
		all[info.Digest] = info.Size
		return nil
	}))
	return all
}

var allForms = []blob.Compression{blob.Gzip, blob.EStargz, blob.Zstd, blob.Uncompressed}

// plain is a layer as a tar archive, whatever form it was stored in.
func (e *env) plain(l cache.Layer) []byte {
	e.t.Helper()
	d, err := blob.NewDecompressor(bytes.NewReader(e.blobBytes(l.Descriptor)))
	require.NoError(e.t, err)
	b, err := io.ReadAll(d)
	require.NoError(e.t, err)
	require.NoError(e.t, d.Close())
	return b
}

func TestEveryFormOfALayerIsMadeOnceAndGoesWithItsRecord(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		ref := e.step(nil, "f", "content")
		id := ref.ID()
		e.release(ref)
		tree := e.usage()[0].Size
		ref, err := e.Get(e.ctx, id)
		require.NoError(t, err)
		made := map[blob.Compression]cache.Layer{}
		for _, form := range allForms {
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					_, err := ref.Layers(e.ctx, blob.CompressionOpt{Type: form, Force: true}, cache.Access{})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			made[form] = e.only(ref, blob.CompressionOpt{Type: form, Force: true}, cache.Access{})
		}
		require.Len(t, e.stored(), len(allForms))
		var blobs int64
		for _, size := range e.stored() {
			blobs += size
		}
		check := func() {
			e.release(ref)
			u := e.usage()[0]
			require.Equal(t, tree+blobs, u.Size, "all forms count")
			e.reopen()
			var err error
			ref, err = e.Get(e.ctx, id)
			require.NoError(t, err)
			for form, want := range made {
				got := e.only(ref, blob.CompressionOpt{Type: form, Force: true}, cache.Access{})
				require.Equal(t, want.Descriptor, got.Descriptor, form)
				require.Equal(t, want.DiffID, got.DiffID, form)
			}
		}
		check()
		written := e.modified()
		check()
		require.Equal(t, written, e.modified(), "nothing was made anew after a restart")
		e.release(ref)
		require.Equal(t, []string{id}, e.prune(cache.PruneOpt{All: true}))
		require.Empty(t, e.stored())
	})
}

// modified returns when the files of the content store were written.
func (e *env) modified() map[string]int64 {
	e.t.Helper()
	all := map[string]int64{}
	dir := filepath.Join(e.root, "cache", "content", "blobs", "sha256")
	files, err := os.ReadDir(dir)
	require.NoError(e.t, err)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(e.t, err)
		all[f.Name()] = info.ModTime().UnixNano()
	}
	return all
}

func TestTheDiffIDBelongsToTheForm(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", "content")
	stargz := e.only(ref, blob.CompressionOpt{Type: blob.EStargz}, cache.Access{})
	require.Equal(t, stargz.DiffID, digest.FromBytes(e.plain(stargz)))
	gzip := e.only(ref, blob.CompressionOpt{}, cache.Access{})
	require.Equal(t, gzip, e.only(ref, blob.CompressionOpt{Force: true}, cache.Access{}))
	require.Equal(t, stargz, e.only(ref, blob.CompressionOpt{Type: blob.EStargz}, cache.Access{}))
	require.Equal(t, gzip.DiffID, digest.FromBytes(e.plain(gzip)))
	require.NotEqual(t, gzip.DiffID, stargz.DiffID)
	require.True(t, bytes.HasPrefix(e.plain(stargz), e.plain(gzip)))
	require.Empty(t, gzip.Descriptor.Annotations)

	section := bytes.NewReader(e.blobBytes(stargz.Descriptor))
	r, err := estargz.Open(io.NewSectionReader(section, 0, section.Size()))
	require.NoError(t, err)
	_, err = r.VerifyTOC(digest.Digest(stargz.Descriptor.Annotations[estargz.TOCJSONDigestAnnotation]))
	require.NoError(t, err)

	// A layer that was pulled in this form has one file more, as its image says.
	remote := newRemote()
	desc := remote.add(e.blobBytes(stargz.Descriptor))
	e.release(ref)
	e.prune(cache.PruneOpt{All: true})
	desc.MediaType, desc.Annotations = stargz.Descriptor.MediaType, stargz.Descriptor.Annotations
	pulled, err := e.AddBlob(e.ctx, nil, desc, stargz.DiffID, cache.Description{})
	require.NoError(t, err)
	require.NotEqual(t, ref.ID(), pulled.ID())
	lazy := e.only(pulled, blob.CompressionOpt{Type: blob.EStargz, Force: true}, remote.access())
	require.Equal(t, desc, lazy.Descriptor)
	require.Empty(t, remote.opened, "its form is known without reading it")
	zstd := e.only(pulled, blob.CompressionOpt{Type: blob.Zstd, Force: true}, remote.access())
	require.Equal(t, stargz.DiffID, zstd.DiffID, "converted, it is still that layer")
	require.Equal(t, 1, remote.opened[desc.Digest])
	require.Contains(t, e.files(pulled, remote.access()), "f")
	e.release(pulled)
}

// An image that does not say that its layers are eStargz can have some.
func TestAnEStargzLayerIsNotPackedIntoAnother(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", "content")
	stargz := e.only(ref, blob.CompressionOpt{Type: blob.EStargz}, cache.Access{})
	remote := newRemote()
	desc := remote.add(e.blobBytes(stargz.Descriptor))
	pulled, err := e.AddBlob(e.ctx, nil, desc, stargz.DiffID, cache.Description{})
	require.NoError(t, err)
	again := e.only(pulled, blob.CompressionOpt{Type: blob.EStargz, Force: true}, remote.access())
	require.Equal(t, stargz.Descriptor.Digest, again.Descriptor.Digest)
	require.Equal(t, stargz.DiffID, again.DiffID)
	e.release(ref, pulled)
}

func TestAFormThatWasMadeAndHasGoneIsNotConvertedFrom(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", "content")
	gzip := e.only(ref, blob.CompressionOpt{}, cache.Access{})
	require.NoError(t, e.Content().Delete(e.ctx, gzip.Descriptor.Digest))
	zstd := e.only(ref, blob.CompressionOpt{Type: blob.Zstd, Force: true}, cache.Access{})
	require.Equal(t, gzip.DiffID, zstd.DiffID)
	e.release(ref)
}

func TestLevelsOfTheSameBytesAreOneForm(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", "content")
	six, seven := 6, 7
	a := e.only(ref, blob.CompressionOpt{Level: &six, Force: true}, cache.Access{})
	require.Equal(t, a, e.only(ref, blob.CompressionOpt{Level: &seven, Force: true}, cache.Access{}))
	require.Len(t, e.stored(), 1)
	e.release(ref)
}

func TestNoLevelIsTheDefaultWhateverWasMadeBefore(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", strings.Repeat("content", 1000))
	best, fast := 9, 1
	a := e.only(ref, blob.CompressionOpt{Level: &best, Force: true}, cache.Access{})
	b := e.only(ref, blob.CompressionOpt{Level: &fast, Force: true}, cache.Access{})
	c := e.only(ref, blob.CompressionOpt{Force: true}, cache.Access{})
	require.NotContains(t, []digest.Digest{a.Descriptor.Digest, b.Descriptor.Digest}, c.Descriptor.Digest)
	require.Equal(t, c, e.only(ref, blob.CompressionOpt{}, cache.Access{}))
	e.release(ref)
}
