package cache_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// at is a time before that of every tree of a test.
func at(sec int64) cache.Retime { return cache.Retime{Epoch: time.Unix(sec, 0)} }

// requireTimes fails the test unless no time in a layer is later than latest, and it is what its
// diff id says.
func (e *env) requireTimes(l cache.Layer, latest int64) {
	e.t.Helper()
	data := e.plain(l)
	require.Equal(e.t, l.DiffID, digest.FromBytes(data))
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(e.t, err)
		if h.Name != "stargz.index.json" {
			require.LessOrEqual(e.t, h.ModTime.Unix(), latest, h.Name)
		}
	}
}

func TestTimesAreChangedOnceForEveryForm(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		ref := e.step(e.step(nil, "f", "content"), "g", "more")
		for _, form := range allForms {
			opt := blob.CompressionOpt{Type: form, Force: true}
			before := len(e.stored())
			layers, err := ref.LayersAt(e.ctx, opt, at(1000), cache.Access{})
			require.NoError(t, err)
			require.Len(t, e.stored(), before+2, "nothing but what is asked for is made")
			for _, l := range layers {
				require.True(t, l.Retimed)
				require.Equal(t, blob.MediaType(form, false), l.Descriptor.MediaType)
				e.requireTimes(l, 1000)
			}
			e.reopenWith(&ref)
			written := e.modified()
			again, err := ref.LayersAt(e.ctx, opt, at(1000), cache.Access{})
			require.NoError(t, err)
			require.Len(t, again, len(layers))
			for i := range again {
				require.Equal(t, layers[i].Descriptor, again[i].Descriptor)
				require.Equal(t, layers[i].DiffID, again[i].DiffID)
			}
			require.Equal(t, written, e.modified(), "it is not made twice")
		}
		plain, err := ref.Layers(e.ctx, blob.CompressionOpt{}, cache.Access{})
		require.NoError(t, err)
		for _, l := range plain {
			require.False(t, l.Retimed, "other times are for those who ask for them")
			require.Equal(t, l.DiffID, digest.FromBytes(e.plain(l)))
		}
		e.release(ref)
		e.prune(cache.PruneOpt{All: true})
		require.Empty(t, e.stored())
	})
}

// reopenWith closes the cache and opens it, and the record of a handle, again.
func (e *env) reopenWith(ref **cache.Ref) {
	e.t.Helper()
	id := (*ref).ID()
	e.release(*ref)
	e.reopen()
	var err error
	*ref, err = e.Get(e.ctx, id)
	require.NoError(e.t, err)
}

func TestLayersOfTheBaseKeepTheirTimes(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	base := e.image(r, "a", "b")
	require.NoError(t, base.Realise(e.ctx, r.access()))
	top := e.step(base, "c", "c")
	pulled, err := base.Layers(e.ctx, blob.CompressionOpt{}, r.access())
	require.NoError(t, err)
	ids := []digest.Digest{pulled[0].DiffID, pulled[1].DiffID}
	for name, tc := range map[string]struct {
		base []digest.Digest
		kept int
	}{
		"all of it":                  {ids, 2},
		"one that has more":          {[]digest.Digest{ids[0], ids[1], "sha256:x", "sha256:y"}, 2},
		"up to where it is another":  {[]digest.Digest{ids[0], "sha256:x"}, 1},
		"not after it was another":   {[]digest.Digest{"sha256:x", ids[1]}, 0},
		"nothing of what is unknown": {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			layers, err := top.LayersAt(e.ctx, blob.CompressionOpt{}, cache.Retime{Epoch: time.Unix(-5, 0), Base: tc.base}, r.access())
			require.NoError(t, err)
			for i, l := range layers {
				require.Equal(t, i >= tc.kept, l.Retimed)
				require.Equal(t, ocispec.MediaTypeImageLayerGzip, l.Descriptor.MediaType)
				if i < tc.kept {
					require.Equal(t, pulled[i].Descriptor, l.Descriptor)
				}
			}
		})
	}
	e.release(base, top)
}

func TestALayerThatCannotBeChangedStays(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	broken := bytes.Repeat([]byte{7}, 2048)
	desc := r.add(gzipped(t, broken))
	ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromBytes(broken), cache.Description{})
	require.NoError(t, err)
	layers, err := ref.LayersAt(e.ctx, blob.CompressionOpt{}, at(1000), r.access())
	require.NoError(t, err)
	require.Equal(t, desc.Digest, layers[0].Descriptor.Digest)
	require.ErrorContains(t, layers[0].Unchanged, "archive/tar: invalid tar header")
	require.False(t, layers[0].Retimed)

	desc = r.add([]byte("whatever"))
	desc.MediaType = "application/vnd.example.layer"
	strange, err := e.AddBlob(e.ctx, nil, desc, digest.FromString("x"), cache.Description{})
	require.NoError(t, err)
	layers, err = strange.LayersAt(e.ctx, blob.CompressionOpt{}, at(1000), r.access())
	require.NoError(t, err)
	require.EqualError(t, layers[0].Unchanged, "unsupported media type application/vnd.example.layer")

	lost, err := e.AddBlob(e.ctx, nil, newRemote().add([]byte("gone")), digest.FromString("y"), cache.Description{})
	require.NoError(t, err)
	_, err = lost.LayersAt(e.ctx, blob.CompressionOpt{Force: true}, at(1000), cache.Access{})
	require.ErrorIs(t, err, cache.ErrLost, "what can be built anew is")
	e.release(ref, strange, lost)
}

func TestOnlyTheLatestTimesOfALayerAreKept(t *testing.T) {
	e := newEnv(t, "overlayfs")
	ref := e.step(nil, "f", "content")
	plain := e.only(ref, blob.CompressionOpt{}, cache.Access{})
	for sec := range int64(10) {
		_, err := ref.LayersAt(e.ctx, blob.CompressionOpt{}, at(1000+sec), cache.Access{})
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return len(e.stored()) == 3 }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, e.stored(), plain.Descriptor.Digest)
	written := e.modified()
	layers, err := ref.LayersAt(e.ctx, blob.CompressionOpt{}, at(1009), cache.Access{})
	require.NoError(t, err)
	e.requireTimes(layers[0], 1009)
	require.Equal(t, written, e.modified())
	e.release(ref)
}
