package cache_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"weak"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// noise is a layer of n bytes that nobody can guess.
func noise(t *testing.T, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n)})
	_, err := src.Read(b)
	require.NoError(t, err)
	return archive(t, "noise", string(b))
}

// claim is a source that says it has what others have and knows only the digests of it.
func claim(from *remote, repo string, answer func(desc ocispec.Descriptor) ([]byte, error)) *remote {
	r := newRemote()
	r.repo = repo
	for d := range from.blobs {
		r.blobs[d] = nil
	}
	r.open = func(_ context.Context, desc ocispec.Descriptor, off int64) (io.ReadCloser, error) {
		b, err := answer(desc)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b[min(off, int64(len(b))):])), nil
	}
	return r
}

func TestALayerThatIsHereIsUsedOnlyWithASourceThatHasIt(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e *env) {
				private := newRemote()
				private.repo = "example.org/private"
				data := noise(t, size)
				desc := private.add(gzipped(t, data))
				layers := []cache.Layer{{Descriptor: desc, DiffID: digest.FromBytes(data)}}
				add := func() *cache.Ref {
					ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromBytes(data), cache.Description{})
					require.NoError(t, err)
					return ref
				}
				ref := add()
				id, err := e.Chain(e.ctx, layers, private.access())
				require.NoError(t, err)
				require.Empty(t, id, "nothing is here yet")
				require.Len(t, e.files(ref, private.access()), 1)
				require.Equal(t, 1, private.opened[desc.Digest])
				id, err = e.Chain(e.ctx, layers, private.access())
				require.NoError(t, err)
				require.Equal(t, ref.ID(), id)

				refused := func(what string, r *remote, is func(error) bool) {
					t.Helper()
					same := add()
					defer e.release(same)
					_, err := same.Mount(e.ctx, true, r.access())
					require.True(t, is(err), "%s: mount: %v", what, err)
					require.ErrorContains(t, err, desc.Digest.String())
					_, err = same.Layers(e.ctx, blob.CompressionOpt{}, r.access())
					require.True(t, is(err), "%s: layers: %v", what, err)
					_, err = e.New(e.ctx, same, r.access(), cache.NewOpt{})
					require.True(t, is(err), "%s: step: %v", what, err)
					err = e.FetchBlob(e.ctx, desc, r.access())
					require.True(t, is(err), "%s: blob: %v", what, err)
					_, err = e.Chain(e.ctx, layers, r.access())
					require.True(t, is(err), "%s: chain: %v", what, err)
				}
				refused("a repository without it", claim(private, "example.org/other", func(ocispec.Descriptor) ([]byte, error) {
					return nil, errdefs.ErrNotFound
				}), errdefs.IsNotFound)
				refused("one that sends something", claim(private, "evil.example/x", func(ocispec.Descriptor) ([]byte, error) {
					return make([]byte, desc.Size), nil
				}), func(err error) bool { return err != nil })
				refused("a client's store", claim(private, "", func(ocispec.Descriptor) ([]byte, error) {
					return nil, io.ErrUnexpectedEOF
				}), func(err error) bool { return err != nil })

				copied := newRemote()
				copied.repo = "example.org/copy"
				copied.add(private.blobs[desc.Digest])
				same := add()
				require.Equal(t, ref.ID(), same.ID())
				require.Len(t, e.files(same, copied.access()), 1)
				asked := copied.opened[desc.Digest]
				require.LessOrEqual(t, asked, 2, "pieces of it are compared")
				require.Len(t, e.files(same, copied.access()), 1)
				again := newRemote()
				again.repo, again.blobs = copied.repo, copied.blobs
				require.Len(t, e.files(same, again.access()), 1)
				require.Empty(t, again.opened, "the repository is known to have it")
				require.Equal(t, asked, copied.opened[desc.Digest])
				e.release(ref, same)
			})
		})
	}
}

func TestATreeThatWasMadeForAnotherIsNotForWhoWaitedForIt(t *testing.T) {
	e := newEnv(t, "overlayfs")
	private := newRemote()
	private.repo = "example.org/private"
	ref := e.image(private, "a")
	evil := claim(private, "evil.example/x", func(ocispec.Descriptor) ([]byte, error) { return nil, errdefs.ErrNotFound })
	begun, waits := make(chan struct{}), make(chan struct{})
	blobs := private.blobs
	private.open = func(_ context.Context, desc ocispec.Descriptor, off int64) (io.ReadCloser, error) {
		close(begun)
		<-waits
		return io.NopCloser(bytes.NewReader(blobs[desc.Digest][off:])), nil
	}
	mine, theirs := make(chan error, 1), make(chan error, 1)
	go func() { mine <- ref.Realise(e.ctx, private.access()) }()
	<-begun
	go func() {
		same := ref.Clone()
		close(waits)
		theirs <- same.Realise(e.ctx, evil.access())
		e.release(same)
	}()
	require.NoError(t, <-mine)
	require.ErrorIs(t, <-theirs, errdefs.ErrNotFound)
	e.release(ref)
}

func TestAForgedDiffIDGivesItsContentToNobody(t *testing.T) {
	e := newEnv(t, "overlayfs")
	data := archive(t, "a", "genuine")
	diffID := digest.FromBytes(data)
	evil := newRemote()
	forged := evil.add(gzipped(t, archive(t, "a", "forged")))
	bad, err := e.AddBlob(e.ctx, nil, forged, diffID, cache.Description{})
	require.NoError(t, err)

	good := newRemote()
	desc := good.add(gzipped(t, data))
	ref, err := e.AddBlob(e.ctx, nil, desc, diffID, cache.Description{})
	require.NoError(t, err)
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, good.access())
	require.NoError(t, err)
	require.Equal(t, desc.Digest, layers[0].Descriptor.Digest, "an export names the genuine blob")
	require.ErrorContains(t, bad.Realise(e.ctx, evil.access()), "the image says "+diffID.String())
	require.Equal(t, map[string]string{"a": "genuine"}, e.files(ref, good.access()))
	// Also not once the genuine one is here.
	require.ErrorContains(t, bad.Realise(e.ctx, evil.access()), "the image says "+diffID.String())
	e.release(ref, bad)
}

// A source belongs to a build: what it refers to goes with it.
func TestSourcesAreNotKept(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		data := noise(t, 1000)
		packed := gzipped(t, data)
		use := func() (weak.Pointer[remote], *cache.Ref) {
			r := newRemote()
			r.repo = "example.org/private"
			desc := r.add(packed)
			ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromBytes(data), cache.Description{})
			require.NoError(t, err)
			require.Len(t, e.files(ref, r.access()), 1)
			id, err := e.Chain(e.ctx, []cache.Layer{{Descriptor: desc, DiffID: digest.FromBytes(data)}}, r.access())
			require.NoError(t, err)
			require.Equal(t, ref.ID(), id)
			return weak.Make(r), ref
		}
		fetched, first := use()
		proved, second := use()
		require.Equal(t, first.ID(), second.ID())
		runtime.GC()
		require.Nil(t, fetched.Value(), "where a layer was fetched from")
		require.Nil(t, proved.Value(), "what has shown that it has a layer")
		e.release(first, second)
	})
}
