package cache_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
)

// archive returns a layer with the files given as name, content, …
func archive(t testing.TB, files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// image adds layers that are all in the remote, one file each, and returns the handle on the top.
func (e *env) image(r *remote, names ...string) *cache.Ref {
	e.t.Helper()
	var ref *cache.Ref
	for _, n := range names {
		data := archive(e.t, n, "content of "+n)
		desc := r.add(gzipped(e.t, data))
		next, err := e.AddBlob(e.ctx, ref, desc, digest.FromBytes(data), cache.Description{Text: "pulled " + n})
		require.NoError(e.t, err)
		e.release(ref)
		ref = next
	}
	return ref
}

func TestALazyTreeIsFetchedWhenItIsRead(t *testing.T) {
	each(t, func(t *testing.T, e *env) {
		r := newRemote()
		ref := e.image(r, "a", "b", "c")
		require.Empty(t, r.opened)
		_, err := ref.Mount(e.ctx, true, cache.Access{})
		require.ErrorIs(t, err, cache.ErrLost, "no source is known")
		same := e.image(r, "a", "b", "c")
		require.Equal(t, ref.ID(), same.ID(), "the same chain is the same record")
		require.Len(t, e.files(ref, r.access()), 3)
		for d, n := range r.opened {
			require.Equal(t, 1, n, d)
		}
		require.Len(t, e.files(same, cache.Access{}), 3, "it is here now")
		child := e.step(ref, "d", "d")
		require.Len(t, e.files(child, cache.Access{}), 4)
		e.release(ref, same, child)
	})
}

func TestManyWhoWaitShareOneFetch(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(e.ctx)
			if i%2 == 0 {
				cancel()
			}
			err := ref.Realise(ctx, r.access())
			if i%2 == 0 {
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("a cancelled waiter got: %v", err)
				}
			} else if err != nil {
				t.Errorf("a waiter got: %v", err)
			}
			cancel()
		})
	}
	wg.Wait()
	require.Len(t, e.files(ref, cache.Access{}), 10)
	for d, n := range r.opened {
		require.Equal(t, 1, n, d)
	}
	e.release(ref)
}

func TestTheLastWhoGoesCancelsTheFetch(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	opened, ended := make(chan struct{}), make(chan error, 1)
	r.open = func(ctx context.Context, _ ocispec.Descriptor, _ int64) (io.ReadCloser, error) {
		close(opened)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
	ctx1, cancel1 := context.WithCancelCause(e.ctx)
	ctx2, cancel2 := context.WithCancelCause(e.ctx)
	errs := make(chan error, 2)
	go func() { errs <- ref.Realise(ctx1, r.access()) }()
	<-opened
	joined := make(chan struct{})
	go func() { close(joined); errs <- ref.Realise(ctx2, r.access()) }()
	<-joined
	gone1, gone2 := errors.New("first has gone"), errors.New("second has gone")
	cancel1(gone1)
	require.ErrorIs(t, <-errs, gone1)
	cancel2(gone2)
	require.ErrorIs(t, <-errs, gone2)
	require.Error(t, <-ended)
	r.open = nil
	require.NoError(t, ref.Realise(e.ctx, r.access()), "and it can be begun again")
	e.release(ref)
}

func TestAFetchGoesOnWithTheSourceOfAnother(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	bad := newRemote()
	for d, b := range r.blobs {
		bad.blobs[d] = b
	}
	bad.open = func(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error) {
		return nil, errors.New("401 unauthorized")
	}
	err := ref.Realise(e.ctx, bad.access())
	require.ErrorContains(t, err, "401 unauthorized")
	require.NotErrorIs(t, err, cache.ErrLost)
	bad.open = func(context.Context, ocispec.Descriptor, int64) (io.ReadCloser, error) {
		return nil, errdefs.ErrNotFound
	}
	require.ErrorIs(t, ref.Realise(e.ctx, bad.access()), cache.ErrLost, "no source has it any more")
	acc := cache.Access{Blobs: blob.Finders{finder{bad}, finder{r}}}
	require.NoError(t, ref.Realise(e.ctx, acc))
	e.release(ref)
}

func TestWrongBytesAreFoundOut(t *testing.T) {
	e := newEnv(t, "overlayfs")
	for name, tt := range map[string]struct {
		serve func(b []byte) []byte
		want  string
	}{
		"other bytes of the same length": {func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b }, "do not match the digest"},
		"too few bytes":                  {func(b []byte) []byte { return b[:len(b)/2] }, "unexpected EOF"},
		"too many bytes":                 {func(b []byte) []byte { return append(bytes.Clone(b), 0) }, "do not match the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote()
			ref := e.image(r, "a "+name)
			r.open = func(_ context.Context, d ocispec.Descriptor, off int64) (io.ReadCloser, error) {
				b := tt.serve(r.blobs[d.Digest])
				return io.NopCloser(bytes.NewReader(b[min(off, int64(len(b))):])), nil
			}
			err := ref.Realise(e.ctx, r.access())
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "sha256:")
			r.open = nil
			require.NoError(t, ref.Realise(e.ctx, r.access()), "the right bytes are taken afterwards")
			e.release(ref)
		})
	}
}

func TestALayerThatUnpacksToSomethingElseIsRefused(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	desc := r.add(gzipped(t, archive(t, "a", "a")))
	ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromString("something else"), cache.Description{})
	require.NoError(t, err)
	err = ref.Realise(e.ctx, r.access())
	require.ErrorContains(t, err, "the image says "+digest.FromString("something else").String())
	require.ErrorContains(t, err, desc.Digest.String())
	e.release(ref)
	_, err = e.AddBlob(e.ctx, nil, desc, "no digest", cache.Description{})
	require.ErrorContains(t, err, "no digest")
}

func TestATruncatedArchiveIsRefused(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	data := archive(t, "a", string(make([]byte, 10000)))[:5000]
	desc := r.add(gzipped(t, data))
	ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromBytes(data), cache.Description{})
	require.NoError(t, err)
	err = ref.Realise(e.ctx, r.access())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, `"a"`)
	e.release(ref)
}

func TestABlobDamagedOnDiskIsFetchedAgain(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	data := archive(t, "a", "a")
	desc := r.add(gzipped(t, data))
	ref, err := e.AddBlob(e.ctx, nil, desc, digest.FromBytes(data), cache.Description{})
	require.NoError(t, err)
	e.plant(desc, r.blobs[desc.Digest])
	require.NoError(t, ref.Realise(e.ctx, r.access()))
	require.Len(t, e.files(ref, cache.Access{}), 1)
	e.release(ref)
}

func TestProgressIsShownWhereTheLayerWasResolved(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	var mu sync.Mutex
	last := map[string]event.Status{}
	vertex := digest.FromString("vertex")
	r.scope = event.NewScope(event.SinkFunc(func(b event.Batch) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range b.Statuses {
			last[s.ID] = s
		}
	}), vertex)
	require.NoError(t, ref.Realise(e.ctx, r.access()))
	for d, b := range r.blobs {
		st := last[d.String()]
		require.Equal(t, vertex, st.Vertex)
		require.EqualValues(t, len(b), st.Total)
		require.EqualValues(t, len(b), st.Current)
		require.NotNil(t, st.Completed)
		require.NotNil(t, last["extracting "+d.String()].Completed)
	}
	require.Len(t, last, 2)
	e.release(ref)
}

// plant stores a blob, as another image with the same layer would, and damages its file.
func (e *env) plant(desc ocispec.Descriptor, b []byte) {
	e.t.Helper()
	lease, err := e.Leases().Create(e.ctx, leases.WithRandomID())
	require.NoError(e.t, err)
	ctx := leases.WithLease(e.ctx, lease.ID)
	require.NoError(e.t, content.WriteBlob(ctx, e.Content(), "plant", bytes.NewReader(b), desc))
	file := filepath.Join(e.root, "cache", "content", "blobs", "sha256", desc.Digest.Encoded())
	require.NoError(e.t, os.WriteFile(file, []byte("rubbish"), 0o600))
}

func (e *env) blobBytes(desc ocispec.Descriptor) []byte {
	e.t.Helper()
	b, err := content.ReadBlob(e.ctx, e.Content(), desc)
	require.NoError(e.t, err)
	return b
}

func TestABlobIsFetchedOnceForARecordAndForALease(t *testing.T) {
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	layers, err := ref.Layers(e.ctx, blob.CompressionOpt{}, r.access())
	require.NoError(t, err)
	desc := layers[0].Descriptor
	require.ErrorIs(t, e.FetchBlob(e.ctx, desc, cache.Access{}), cache.ErrLost)
	lease, err := e.Leases().Create(e.ctx, leases.WithRandomID())
	require.NoError(t, err)
	leased := leases.WithLease(e.ctx, lease.ID)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := ref.Realise(e.ctx, r.access()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := e.FetchBlob(leased, desc, r.access()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, r.opened[desc.Digest])
	e.release(ref)
	require.NoError(t, e.Drop(e.ctx, ref.ID()))
	require.Len(t, e.blobBytes(desc), int(desc.Size), "the lease keeps it")
}
