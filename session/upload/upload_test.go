package upload_test

import (
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openbuildkit/buildkit/session/sessiontest"
	"github.com/openbuildkit/buildkit/session/upload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAStreamIsReadOnce(t *testing.T) {
	p := upload.NewProvider()
	text := strings.Repeat("0123456789", 100_000)
	u, err := url.Parse(p.Add(io.NopCloser(strings.NewReader(text))))
	require.NoError(t, err)
	require.Equal(t, upload.Host, u.Host)
	_, c := sessiontest.Connect(t, p)
	r, err := upload.Open(t.Context(), c, u)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
	require.NoError(t, r.Close())

	r, err = upload.Open(t.Context(), c, u)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.True(t, errdefs.IsNotFound(err), err)
	require.NoError(t, r.Close())
}

func TestAFailureOfTheStreamIsTold(t *testing.T) {
	p := upload.NewProvider()
	u, err := url.Parse(p.Add(io.NopCloser(iotest.ErrReader(errors.New("boom")))))
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, p)
	r, err := upload.Open(t.Context(), c, u)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.EqualError(t, err, "boom")
	require.NoError(t, r.Close())
}

func TestAStreamThatNeverEndsIsLeft(t *testing.T) {
	p := upload.NewProvider()
	blocked, w := io.Pipe()
	u, err := url.Parse(p.Add(blocked))
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, p)
	r, err := upload.Open(t.Context(), c, u)
	require.NoError(t, err)
	_, err = w.Write([]byte("x"))
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = w.Write(make([]byte, 1<<20))
	require.ErrorIs(t, err, io.ErrClosedPipe)
}
