package testimage_test

import (
	"archive/tar"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/testimage"
)

func TestImagesAreWholeAfterAPushAndAPull(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	require.NoError(t, testimage.PushAll(t.Context(), host))

	for _, repository := range []string{"full", "onbuild", "empty"} {
		image, err := remote.Image(reference(t, host, repository))
		require.NoError(t, err)
		require.NoError(t, validate.Image(image), repository)
	}
	index, err := remote.Index(reference(t, host, "busybox"))
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
	}
	require.Equal(t, []string{"linux/amd64", "linux/arm64/v8", "linux/arm/v7"}, platforms)
}

func reference(t *testing.T, host, repository string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(host + "/library/" + repository + ":latest")
	require.NoError(t, err)
	return ref
}

func TestBusyboxHasItsAppletsAndUsers(t *testing.T) {
	image, err := testimage.Busybox(testimage.Host())
	require.NoError(t, err)
	headers, passwd := map[string]*tar.Header{}, ""
	walk(t, image, func(header *tar.Header, data []byte) {
		headers[header.Name] = header
		if header.Name == "etc/passwd" {
			passwd = string(data)
		}
	})

	require.Equal(t, byte(tar.TypeReg), headers["bin/busybox"].Typeflag)
	for _, applet := range []string{"sh", "cat", "ls", "sleep", "env"} {
		require.Contains(t, headers, "bin/"+applet)
		require.Equal(t, byte(tar.TypeLink), headers["bin/"+applet].Typeflag)
		require.Equal(t, "bin/busybox", headers["bin/"+applet].Linkname)
	}
	require.Equal(t, int64(0o1777), headers["tmp"].Mode)
	require.Contains(t, passwd, "app:x:1000:1000:")
	require.Contains(t, passwd, "other:x:1001:1002:")
}

func TestTheSameImageHasTheSameDigest(t *testing.T) {
	first, err := testimage.Busybox(testimage.Host())
	require.NoError(t, err)
	second, err := testimage.Busybox(testimage.Host())
	require.NoError(t, err)
	a, err := first.Digest()
	require.NoError(t, err)
	b, err := second.Digest()
	require.NoError(t, err)
	require.Equal(t, a, b)
}

func TestFullDeletesAFileInItsLastLayer(t *testing.T) {
	image, err := testimage.Full()
	require.NoError(t, err)
	var files []string
	walk(t, image, func(header *tar.Header, _ []byte) { files = append(files, header.Name) })
	require.Contains(t, files, "srv/keep.txt")
	require.Contains(t, files, "srv/more.txt")
	require.NotContains(t, files, "srv/gone.txt")
}

// walk calls visit for every entry of an image's tree.
func walk(t *testing.T, image v1.Image, visit func(*tar.Header, []byte)) {
	t.Helper()
	tree := mutate.Extract(image)
	defer tree.Close()
	for reader := tar.NewReader(tree); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		data, err := io.ReadAll(reader)
		require.NoError(t, err)
		visit(header, data)
	}
}
