package content_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	sessioncontent "github.com/openbuildkit/buildkit/session/content"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestALayoutIsReadAndNotChanged(t *testing.T) {
	const data = "a blob"
	dir, dgst := t.TempDir(), digest.FromString(data)
	blobs := filepath.Join(dir, "blobs", "sha256")
	require.NoError(t, os.MkdirAll(filepath.Join(blobs, digest.FromString("folder").Encoded()), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(blobs, dgst.Encoded()), []byte(data), 0o600))
	layout, err := sessioncontent.NewLayout(dir)
	require.NoError(t, err)
	_, c := sessiontest.Connect(t, sessioncontent.NewProvider(map[string]content.Store{"oci:a": layout}))
	store := sessioncontent.NewStore(c, "oci:a")

	info, err := store.Info(t.Context(), dgst)
	require.NoError(t, err)
	require.EqualValues(t, len(data), info.Size)
	got, err := content.ReadBlob(t.Context(), store, ocispec.Descriptor{Digest: dgst})
	require.NoError(t, err)
	require.Equal(t, data, string(got))
	rc, err := sessioncontent.Open(t.Context(), c, "oci:a", dgst, 2)
	require.NoError(t, err)
	got, err = io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	require.Equal(t, data[2:], string(got))

	for name, absent := range map[string]digest.Digest{"absent": digest.FromString("x"), "a folder": digest.FromString("folder")} {
		_, err := store.Info(t.Context(), absent)
		require.True(t, errdefs.IsNotFound(err), "%s: %v", name, err)
	}
	_, err = layout.Info(t.Context(), "sha256:../../../etc/passwd")
	require.True(t, errdefs.IsInvalidArgument(err), err)

	require.Error(t, content.WriteBlob(t.Context(), store, "r", strings.NewReader("x"), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}))
	require.Error(t, store.Delete(t.Context(), dgst))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "only the blobs")
	require.FileExists(t, filepath.Join(blobs, dgst.Encoded()))
}

func TestALayoutThatIsNotThere(t *testing.T) {
	_, err := sessioncontent.NewLayout(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
