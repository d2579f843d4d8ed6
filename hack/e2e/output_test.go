package e2e_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/creack/pty"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// application is a Dockerfile whose image has some of everything.
func application(t *testing.T) string {
	t.Helper()
	return tree(t, map[string]string{
		"Dockerfile": `FROM busybox
WORKDIR /app
COPY --chown=1000:50 --chmod=640 file .
RUN mkdir -p deep/er && echo made > deep/er/made && ln -s made deep/er/link && ln deep/er/made deep/er/hard && rm /etc/shadow
ENV WORD=value
USER app
EXPOSE 80
LABEL org.example.label=text
ENTRYPOINT ["/bin/cat"]
CMD ["file"]
`,
		"file": "contents\n",
	})
}

// requireApplication fails the test unless an image is that of application, and is whole.
func requireApplication(t *testing.T, image v1.Image) {
	t.Helper()
	requireWhole(t, image)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "linux", config.OS)
	require.Equal(t, []string{"/bin/cat"}, config.Config.Entrypoint)
	require.Equal(t, []string{"file"}, config.Config.Cmd)
	require.Equal(t, "/app", config.Config.WorkingDir)
	require.Equal(t, "app", config.Config.User)
	require.Contains(t, config.Config.Env, "WORD=value")
	require.Contains(t, config.Config.ExposedPorts, "80/tcp")
	require.Equal(t, "text", config.Config.Labels["org.example.label"])
	layers, err := image.Layers()
	require.NoError(t, err)
	nonEmpty := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			nonEmpty++
		}
	}
	require.Len(t, layers, nonEmpty, "a line of history for each layer")
}

// requireWhole fails the test unless every blob of an image is what its digest says.
func requireWhole(t *testing.T, image v1.Image) {
	t.Helper()
	manifest, err := image.Manifest()
	require.NoError(t, err)
	if !slices.ContainsFunc(manifest.Layers, notGzip) {
		require.NoError(t, validate.Image(image))
		return
	}
	// The validator expects every layer to be of gzip.
	config, err := image.ConfigFile()
	require.NoError(t, err)
	require.Len(t, config.RootFS.DiffIDs, len(manifest.Layers))
	for i, descriptor := range manifest.Layers {
		layer, err := image.LayerByDigest(descriptor.Digest)
		require.NoError(t, err)
		stream, err := layer.Compressed()
		require.NoError(t, err)
		data, err := io.ReadAll(stream)
		require.NoError(t, err)
		require.NoError(t, stream.Close())
		digest, size, err := v1.SHA256(bytes.NewReader(data))
		require.NoError(t, err)
		require.Equal(t, descriptor.Digest, digest)
		require.Equal(t, descriptor.Size, size)
		plain, err := compression.DecompressStream(bytes.NewReader(data))
		require.NoError(t, err)
		diffID, _, err := v1.SHA256(plain)
		require.NoError(t, err)
		require.NoError(t, plain.Close())
		require.Equal(t, config.RootFS.DiffIDs[i], diffID)
	}
}

func notGzip(d v1.Descriptor) bool {
	return d.MediaType != types.OCILayer && d.MediaType != types.DockerLayer
}

// readLayout returns the only image of an OCI layout.
func readLayout(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	require.Len(t, manifest.Manifests, 1)
	image, err := index.Image(manifest.Manifests[0].Digest)
	require.NoError(t, err)
	return image
}

// metadata is what --metadata-file gets.
type metadata struct {
	Name         string         `json:"image.name"`
	Digest       string         `json:"containerimage.digest"`
	ConfigDigest string         `json:"containerimage.config.digest"`
	Descriptor   *v1.Descriptor `json:"containerimage.descriptor"`
}

func readMetadata(t *testing.T, path string) metadata {
	t.Helper()
	var m metadata
	require.NoError(t, json.Unmarshal([]byte(read(t, path)), &m))
	return m
}

func TestImagesAreWhatOtherToolsExpect(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := application(t)

	for name, attributes := range map[string]string{
		"as usual":             "",
		"uncompressed":         ",compression=uncompressed,force-compression=true",
		"with Docker's types":  ",oci-mediatypes=false",
		"with a compact level": ",compression=gzip,compression-level=9,force-compression=true",
	} {
		t.Run("an OCI layout "+name, func(t *testing.T) {
			temp := t.TempDir()
			out, meta := filepath.Join(temp, "layout"), filepath.Join(temp, "meta.json")
			d.Build(t, dir, "--output=type=oci,tar=false,name=example.org/app:1,dest="+out+attributes, "--metadata-file="+meta)
			image := readLayout(t, out)
			requireApplication(t, image)

			digest, err := image.Digest()
			require.NoError(t, err)
			config, err := image.ConfigName()
			require.NoError(t, err)
			m := readMetadata(t, meta)
			require.Equal(t, "example.org/app:1", m.Name)
			require.Equal(t, digest.String(), m.Digest)
			require.Equal(t, config.String(), m.ConfigDigest)
			require.NotNil(t, m.Descriptor)
			require.Equal(t, digest, m.Descriptor.Digest)
		})
	}
	t.Run("skopeo reads an OCI archive", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.tar")
		d.Build(t, dir, "--output=type=oci,name=example.org/app:1,dest="+out)
		inspected := command(t, "skopeo", "inspect", "oci-archive:"+out)
		require.Contains(t, inspected, "org.example.label")
	})
	t.Run("umoci unpacks an OCI layout", func(t *testing.T) {
		temp := t.TempDir()
		d.Build(t, dir, "--output=type=oci,tar=false,name=example.org/app:1,dest="+filepath.Join(temp, "layout"))
		bundle := filepath.Join(temp, "bundle")
		command(t, "umoci", "unpack", "--image="+filepath.Join(temp, "layout")+":1", bundle)
		require.Equal(t, "contents\n", read(t, bundle, "rootfs/app/file"))
		require.NoFileExists(t, filepath.Join(bundle, "rootfs/etc/shadow"))
	})
	t.Run("a docker archive", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.tar")
		d.Build(t, dir, "--output=type=docker,name=example.org/app:1,dest="+out)
		image, err := tarball.ImageFromPath(out, nil)
		require.NoError(t, err)
		requireApplication(t, image)
		require.Contains(t, command(t, "skopeo", "inspect", "docker-archive:"+out+":example.org/app:1"), "org.example.label")
	})
	t.Run("a docker layout", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "layout")
		d.Build(t, dir, "--output=type=docker,tar=false,name=example.org/app:1,dest="+out)
		requireApplication(t, readLayout(t, out))
	})
	t.Run("an archive on stdout", func(t *testing.T) {
		result := d.Build(t, dir, "--output=type=oci")
		require.True(t, strings.HasPrefix(result.Stdout, "blobs/"), "%.100q", result.Stdout)
	})
	t.Run("two builds give one digest", func(t *testing.T) {
		var digests []string
		for range 2 {
			meta := filepath.Join(t.TempDir(), "meta.json")
			d.Build(t, dir, "--output=type=oci,dest="+filepath.Join(t.TempDir(), "out.tar"), "--metadata-file="+meta)
			digests = append(digests, readMetadata(t, meta).Digest)
		}
		require.Equal(t, digests[0], digests[1])
	})
	t.Run("the daemon's own blobs are whole", func(t *testing.T) {
		d.Restart(t)
		out := filepath.Join(t.TempDir(), "layout")
		d.Build(t, dir, "--output=type=oci,tar=false,dest="+out)
		requireApplication(t, readLayout(t, out))
	})
	d.RequireIdle(t)
}

func TestFilesAreExportedAsTheyAre(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := application(t)

	t.Run("to a folder", func(t *testing.T) {
		temp := t.TempDir()
		out, meta := filepath.Join(temp, "out"), filepath.Join(temp, "meta.json")
		d.Build(t, dir, toLocal(out), "--metadata-file="+meta)
		require.Equal(t, "contents\n", read(t, out, "app/file"))
		info, err := os.Stat(filepath.Join(out, "app/file"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode())
		target, err := os.Readlink(filepath.Join(out, "app/deep/er/link"))
		require.NoError(t, err)
		require.Equal(t, "made", target)
		require.Equal(t, "made\n", read(t, out, "app/deep/er/hard"))
		require.NoFileExists(t, filepath.Join(out, "etc/shadow"))
		require.NoFileExists(t, meta, "there is nothing to say")
	})
	t.Run("to a folder that has files already", func(t *testing.T) {
		out := tree(t, map[string]string{"app/file": "old\n", "other": "kept\n"})
		d.Build(t, dir, toLocal(out))
		require.Equal(t, "contents\n", read(t, out, "app/file"))
		require.Equal(t, "kept\n", read(t, out, "other"))
	})
	t.Run("to an archive", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out.tar")
		d.Build(t, dir, "--output=type=tar,dest="+out)
		file, err := os.Open(out)
		require.NoError(t, err)
		defer file.Close()
		headers := headersOf(t, file)
		require.Equal(t, int64(0o640), headers["app/file"].Mode)
		require.Equal(t, 1000, headers["app/file"].Uid)
		require.Equal(t, 50, headers["app/file"].Gid)
		require.Equal(t, "made", headers["app/deep/er/link"].Linkname)
		require.NotContains(t, headers, "etc/shadow")
	})
	t.Run("to an archive on stdout", func(t *testing.T) {
		for _, dest := range []string{"", ",dest=-"} {
			result := d.Build(t, dir, "--output=type=tar"+dest)
			require.Contains(t, headersOf(t, strings.NewReader(result.Stdout)), "app/file")
		}
	})
	t.Run("of several platforms to folders of their own", func(t *testing.T) {
		out := t.TempDir()
		d.Build(t, dockerfile(t, "FROM busybox AS b", "FROM scratch", "ARG TARGETARCH", "COPY --from=b /etc/passwd /$TARGETARCH"),
			toLocal(out), "--opt=platform=linux/amd64,linux/arm64")
		require.FileExists(t, filepath.Join(out, "linux_amd64", "amd64"))
		require.FileExists(t, filepath.Join(out, "linux_arm64", "arm64"))
	})
	d.RequireIdle(t)
}

// headersOf returns the entries of an archive by their names.
func headersOf(t *testing.T, r io.Reader) map[string]*tar.Header {
	t.Helper()
	headers := map[string]*tar.Header{}
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		require.NoError(t, err)
		headers[strings.TrimPrefix(header.Name, "/")] = header
	}
}

func TestABadDestinationIsRefusedBeforeAnythingRuns(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM busybox", "RUN true")
	folder := t.TempDir()
	for name, test := range map[string]struct{ output, want string }{
		"a local one without a folder":    {"type=local", "output directory is required for local exporter"},
		"a folder for an archive":         {"type=tar,dest=" + folder, "destination file is a directory"},
		"a file in a folder that is not":  {"type=oci,dest=" + folder + "/no/x.tar", "there is no folder " + folder + "/no"},
		"no type":                         {"dest=" + folder, "--output requires type=<type>"},
		"a type that is not known":        {"type=nosuch", "nosuch"},
		"a field that is none":            {"type=local,dest", "invalid value dest"},
		"a compression that is not known": {"type=oci,compression=nosuch,dest=" + filepath.Join(folder, "x"), "nosuch"},
	} {
		t.Run(name, func(t *testing.T) {
			result := d.Buildctl(t, harness.DockerfileArgs(dir, "--output="+test.output)...)
			require.Equal(t, 1, result.Code)
			require.Contains(t, result.Stderr, test.want)
			require.Empty(t, ran(result))
		})
	}
}

func TestAnArchiveIsNotWrittenToATerminal(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM scratch", "COPY Dockerfile /")
	for _, kind := range []string{"tar", "oci", "docker"} {
		for _, dest := range []string{"", ",dest=-"} {
			t.Run(kind+dest, func(t *testing.T) {
				terminal, other, err := pty.Open()
				require.NoError(t, err)
				defer terminal.Close()
				c := prepare(t, d, harness.DockerfileArgs(dir, "--output=type="+kind+dest)...)
				c.cmd.Stdout = other
				c.start(t)
				require.NoError(t, other.Close())
				result := c.waitWithin(t, 30*time.Second)
				require.Equal(t, 1, result.Code)
				require.Contains(t, result.Stderr, "output file is required for "+kind+" exporter. refusing to write to console")
			})
		}
	}
}
