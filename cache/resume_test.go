package cache_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache"
)

// stuck sends a part, says when all of it has been taken, and then nothing until ctx ends.
type stuck struct {
	ctx   context.Context
	part  io.Reader
	taken chan<- struct{}
}

func (s stuck) Read(p []byte) (int, error) {
	n, err := s.part.Read(p)
	if err == nil {
		return n, nil
	}
	close(s.taken)
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (stuck) Close() error { return nil }

func TestAFetchGoesOnAfterACrash(t *testing.T) {
	const part = 40
	e := newEnv(t, "overlayfs")
	r := newRemote()
	ref := e.image(r, "a")
	taken := make(chan struct{})
	r.open = func(ctx context.Context, desc ocispec.Descriptor, _ int64) (io.ReadCloser, error) {
		return stuck{ctx, bytes.NewReader(r.blobs[desc.Digest][:part]), taken}, nil
	}
	ctx, cancel := context.WithCancel(e.ctx)
	ended := make(chan error, 1)
	go func() { ended <- ref.Realise(ctx, r.access()) }()
	select {
	case <-taken:
	case err := <-ended:
		t.Fatalf("the fetch has ended: %v", err)
	}
	crashed := &env{t: t, ctx: e.ctx, root: tmpfs(t, "512m"), name: e.name}
	copied := os.CopyFS(crashed.root, os.DirFS(e.root)) // what a crash at this moment leaves
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.NoError(t, copied)
	id := ref.ID()
	e.release(ref)

	crashed.open()
	defer crashed.close()
	var offsets []int64
	r.open = func(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
		offsets = append(offsets, offset)
		return io.NopCloser(bytes.NewReader(r.blobs[desc.Digest][offset:])), nil
	}
	ref, err := crashed.Get(e.ctx, id)
	require.NoError(t, err, "what no record stands for is removed")
	require.Len(t, crashed.files(ref, r.access()), 1)
	require.NotEmpty(t, offsets)
	require.EqualValues(t, part, offsets[0])
	require.Len(t, crashed.files(ref, cache.Access{}), 1)
	crashed.release(ref)
}
