package content_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openbuildkit/buildkit/session"
	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBlobsGoBothWaysInTheStoreThatIsNamed(t *testing.T) {
	first, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	second, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, sessioncontent.NewProvider(map[string]content.Store{"local:a": first, "oci:b": second}))
	store := sessioncontent.NewStore(c, "oci:b")

	data := bytes.Repeat([]byte("blob"), 1<<20)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(data), desc))
	got, err := content.ReadBlob(t.Context(), second, desc)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	got, err = content.ReadBlob(t.Context(), store, desc)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	_, err = sessioncontent.NewStore(c, "local:a").Info(t.Context(), desc.Digest)
	require.True(t, errdefs.IsNotFound(err), err)
	count := 0
	require.NoError(t, store.Walk(t.Context(), func(content.Info) error { count++; return nil }))
	require.Equal(t, 1, count)
	require.NoError(t, store.Delete(t.Context(), desc.Digest))
	_, err = second.Info(t.Context(), desc.Digest)
	require.True(t, errdefs.IsNotFound(err), err)
}

func TestAnUnknownStore(t *testing.T) {
	_, c := sessiontest.Connect(t, sessioncontent.NewProvider(nil))
	_, err := sessioncontent.NewStore(c, "x").Info(t.Context(), digest.FromString(""))
	require.True(t, errdefs.IsNotFound(err), err)
	require.ErrorContains(t, err, `unknown content store "x"`)
}

func TestABlobIsReadAsAStreamFromAnOffset(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, sessioncontent.NewProvider(map[string]content.Store{"oci:a": store}))
	data := bytes.Repeat([]byte("0123456789"), 400_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(data), desc))
	for _, offset := range []int{0, 1, 3_999_999} {
		r, err := sessioncontent.Open(t.Context(), c, "oci:a", desc.Digest, int64(offset))
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data[offset:], got), offset)
		require.NoError(t, r.Close())
	}
	_, err = sessioncontent.Open(t.Context(), c, "oci:a", digest.FromString("absent"), 0)
	require.True(t, errdefs.IsNotFound(err), err)
}

// stuckStore holds blobs of which the second half never comes, until end is closed.
type stuckStore struct {
	content.Store
	end chan struct{}
}

func (s stuckStore) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	ra, err := s.Store.ReaderAt(ctx, desc)
	return stuckReader{ra, s.end}, err
}

type stuckReader struct {
	content.ReaderAt
	end chan struct{}
}

func (r stuckReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= r.Size()/2 {
		<-r.end
		return 0, io.ErrUnexpectedEOF
	}
	return r.ReaderAt.ReadAt(p[:min(int64(len(p)), r.Size()/2-offset)], offset)
}

func TestAStreamThatNobodyWantsEnds(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	stuck := stuckStore{store, make(chan struct{})}
	_, c := sessiontest.Connect(t, sessioncontent.NewProvider(map[string]content.Store{"oci:a": stuck}))
	t.Cleanup(func() { close(stuck.end) }) // before the session is ended
	data := bytes.Repeat([]byte("0123456789"), 400_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(data), desc))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := sessioncontent.Open(ctx, c, "oci:a", desc.Digest, 0)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(r)
	require.Error(t, err)
	require.NoError(t, r.Close())
}

func TestErrorsOfStreamsAreFaultsOfTheSession(t *testing.T) {
	store, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	stuck := stuckStore{store, make(chan struct{})}
	m := session.NewManager()
	s, err := session.New("")
	require.NoError(t, err)
	c := sessiontest.Run(t, m, s, nil, sessioncontent.NewProvider(map[string]content.Store{"oci:a": stuck}))
	data := bytes.Repeat([]byte("0123456789"), 400_000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	require.NoError(t, content.WriteBlob(t.Context(), store, "ref", bytes.NewReader(data), desc))
	_, err = sessioncontent.Open(t.Context(), c, "oci:a", digest.FromString("absent"), 0)
	require.Equal(t, c.ID(), session.Faults(err)[0].ID)
	r, err := sessioncontent.Open(t.Context(), c, "oci:a", desc.Digest, 0)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	go func() { _ = s.Close() }() // it waits for the call
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, session.ErrLost)
	require.Equal(t, c.ID(), session.Faults(err)[0].ID)
	require.NoError(t, r.Close())
	close(stuck.end)
}
