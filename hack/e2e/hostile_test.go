package e2e_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/hack/testimage"
)

// entry is a file of a layer.
type entry struct {
	tar.Header
	data string
}

// image returns busybox with one more layer.
func image(tb testing.TB, entries ...entry) v1.Image {
	tb.Helper()
	return imageOf(tb, entries)
}

// imageOf is image with several layers.
func imageOf(tb testing.TB, layers ...[]entry) v1.Image {
	tb.Helper()
	base, err := testimage.Busybox(testimage.Host())
	require.NoError(tb, err)
	var added []mutate.Addendum
	for _, entries := range layers {
		added = append(added, mutate.Addendum{Layer: layerOf(tb, entries), MediaType: types.OCILayer})
	}
	with, err := mutate.Append(base, added...)
	require.NoError(tb, err)
	return with
}

func layerOf(tb testing.TB, entries []entry) v1.Layer {
	tb.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, e := range entries {
		header := e.Header
		header.Size = int64(len(e.data))
		header.ModTime = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if header.Mode == 0 {
			header.Mode = 0o755
		}
		require.NoError(tb, w.WriteHeader(&header))
		_, err := io.WriteString(w, e.data)
		require.NoError(tb, err)
	}
	require.NoError(tb, w.Close())
	added, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	require.NoError(tb, err)
	return added
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func regular(name, data string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name}, data: data}
}

// up leads from anywhere to the root of the file system.
const up = "../../../../../../../../../../../.."

// outside returns a folder of the host that holds a secret, and a function that fails the test when
// anything in there has changed.
func outside(t *testing.T) (dir string, requireUntouched func()) {
	t.Helper()
	dir = tree(t, map[string]string{"secret": "secret of the host\n"})
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "the build wrote to the host: %v", entries)
		require.Equal(t, "secret of the host\n", read(t, dir, "secret"))
	}
}

func TestLinksInTheContextLeadNowhereElse(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	host, requireUntouched := outside(t)
	dir := tree(t, map[string]string{"file": "file\n"})
	for name, target := range map[string]string{
		"absolute": filepath.Join(host, "secret"),
		"relative": filepath.Join(up, host, "secret"),
		"folder":   host,
		"loop":     "loop",
		"inside":   "file",
		"dangling": "nosuch",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}

	t.Run("links are sent as links", func(t *testing.T) {
		out := t.TempDir()
		write(t, filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY . /\n")
		d.Build(t, dir, toLocal(out))
		for _, name := range []string{"absolute", "relative", "folder", "loop", "inside", "dangling"} {
			want, err := os.Readlink(filepath.Join(dir, name))
			require.NoError(t, err)
			got, err := os.Readlink(filepath.Join(out, name))
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
	for _, name := range []string{"folder/secret", "folder/.", "absolute/../secret", "loop/x", "nosuch"} {
		t.Run("a copy of "+name+" finds nothing", func(t *testing.T) {
			write(t, filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY "+name+" /copied/\n")
			out := t.TempDir()
			result := d.Buildctl(t, harness.DockerfileArgs(dir, toLocal(out))...)
			require.Equal(t, 1, result.Code, result.Stderr)
			require.NoFileExists(t, filepath.Join(out, "copied", "secret"))
			require.NotContains(t, result.Stderr, "secret of the host")
		})
	}
	t.Run("a Dockerfile is not read from outside", func(t *testing.T) {
		other := t.TempDir()
		require.NoError(t, os.Symlink(filepath.Join(host, "secret"), filepath.Join(other, "Dockerfile")))
		result := d.Buildctl(t, harness.DockerfileArgs(other)...)
		require.Equal(t, 1, result.Code, result.Stderr)
		require.NotContains(t, result.Stderr, "secret of the host")
	})
	requireUntouched()
	requireAlive(t, d)
}

func TestLinksInAnImageLeadNowhereElse(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	host, requireUntouched := outside(t)
	registry.Push(t, "library/links:latest", image(t,
		symlink("absolute", host),
		symlink("relative", filepath.Join(up, host)),
		symlink("work", filepath.Join(host, "work")),
		symlink("etc/resolv.conf", filepath.Join(host, "resolv.conf")),
		symlink("etc/hosts", filepath.Join(host, "secret")),
	))

	for name, lines := range map[string][]string{
		"a copy":                  {"COPY file /absolute/copied"},
		"a copy by another way":   {"COPY file /relative/copied"},
		"a copy over the link":    {"COPY file /absolute"},
		"a copy with parents":     {"COPY file /absolute/a/b/c/"},
		"an archive":              {"ADD archive.tar /absolute/"},
		"a working folder":        {"WORKDIR /work", "RUN echo written > here"},
		"a heredoc":               {"COPY <<x /absolute/heredoc", "text", "x"},
		"a mount point":           {"RUN --mount=type=bind,target=/absolute/mounted ls /absolute/mounted"},
		"a cache directory":       {"RUN --mount=type=cache,target=/relative/mounted touch /relative/mounted/x"},
		"a temporary file system": {"RUN --mount=type=tmpfs,target=/absolute/temporary touch /absolute/temporary/x"},
		"a secret":                {"RUN --mount=type=secret,id=s,target=/absolute/s true"},
		"a step":                  {"RUN mkdir -p /absolute/ /relative/; echo x > /absolute/x; echo nameserver > /etc/resolv.conf; true"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string]string{
				"Dockerfile": "FROM links\n" + strings.Join(lines, "\n") + "\n",
				"file":       "file\n",
			})
			command(t, "tar", "-C", dir, "-cf", filepath.Join(dir, "archive.tar"), "file")
			d.Buildctl(t, harness.DockerfileArgs(dir, "--secret=id=s,src="+filepath.Join(dir, "file"))...)
			requireUntouched()
		})
	}
	t.Run("a read", func(t *testing.T) {
		for _, source := range []string{"/absolute/secret", "/relative/secret", "/absolute/.", "/etc/hosts"} {
			out := t.TempDir()
			d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM scratch", "COPY --from=links "+source+" /copied/"), toLocal(out))...)
			command(t, "sh", "-c", `! grep -rq "secret of the host" "$1"`, "sh", out)
		}
	})
	d.RequireIdle(t)
	requireAlive(t, d)
}

func TestLayersOfAnyShapeStayInsideTheTree(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	host, requireUntouched := outside(t)
	for name, entries := range map[string][]entry{
		"names that go up":            {regular(up+host+"/escaped", "x"), regular("a/"+up+host+"/escaped", "x")},
		"absolute names":              {regular(host+"/escaped", "x")},
		"a file through a link":       {symlink("link", host), regular("link/escaped", "x")},
		"a folder through a link":     {symlink("link", host), {Header: tar.Header{Typeflag: tar.TypeDir, Name: "link/escaped/"}}},
		"a removal through a link":    {symlink("link", host), regular("link/.wh.secret", "")},
		"a removal that goes up":      {regular(up+host+"/.wh.secret", "")},
		"a removal of the parent":     {regular("a/.wh...", ""), regular(".wh..", ""), regular(".wh.", "")},
		"a removal of all by a link":  {symlink("link", host), regular("link/.wh..wh..opq", "")},
		"a hard link to the host":     {hardlink("stolen", filepath.Join(host, "secret"))},
		"a hard link that goes up":    {hardlink("stolen", filepath.Join(up, host, "secret"))},
		"a hard link by a link":       {symlink("link", host), hardlink("stolen", "link/secret")},
		"a hard link to nothing":      {hardlink("stolen", "nosuch")},
		"a link in place of a folder": {symlink("etc", host), regular("etc/escaped", "x")},
		"a link in place of the root": {symlink(".", host), regular("escaped", "x")},
		"an owner of no user":         {{Header: tar.Header{Typeflag: tar.TypeReg, Name: "x", Uid: 1<<31 - 2, Gid: -1}}},
	} {
		t.Run(name, func(t *testing.T) {
			repository := "shape/" + strings.ReplaceAll(name, " ", "-") + ":latest"
			registry.Push(t, repository, image(t, entries...))
			out := t.TempDir()
			d.Buildctl(t, harness.DockerfileArgs(dockerfile(t,
				"FROM "+registry.Host+"/"+repository+" AS shape",
				"RUN cat /stolen /link/* /etc/* 2>/dev/null > /found; true",
				"FROM scratch",
				"COPY --from=shape /found /"), toLocal(out))...)
			requireUntouched()
			command(t, "sh", "-c", `! grep -rq "secret of the host" "$1"`, "sh", out)
			requireAlive(t, d)
		})
	}
	require.NotContains(t, d.Logs(), "panic")
	d.RequireIdle(t)
}

func TestSpecialFilesOfLayersReachStepsAndArchives(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	registry.Push(t, "library/special:latest", image(t,
		entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null2", Devmajor: 1, Devminor: 3, Mode: 0o666}},
		entry{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 7, Devminor: 200, Mode: 0o600}},
		entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o644}},
		entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: "setuid", Mode: 0o4755, Uid: 1000, Gid: 50}, data: "x"},
		regular("first", "one inode\n"),
		hardlink("second", "first"),
	))
	dir := dockerfile(t, "FROM special AS step",
		`RUN test -c /null2 && test -b /disk && test -p /pipe && [ "$(stat -c %t:%T /null2)" = 1:3 ]`,
		`RUN [ "$(stat -c %h:%i /first)" = "$(stat -c %h:%i /second)" ] && [ "$(stat -c %a:%u:%g /setuid)" = 4755:1000:50 ]`,
		// What a container may not open, however it came there.
		"RUN ! head -c 1 /disk",
		"FROM scratch", "COPY --from=step /null2 /pipe /setuid /first /second /")
	file := filepath.Join(t.TempDir(), "out.tar")
	d.Build(t, dir, "--output=type=tar,dest="+file)
	stream, err := os.Open(file)
	require.NoError(t, err)
	defer stream.Close()
	headers := headersOf(t, stream)
	require.Equal(t, byte(tar.TypeChar), headers["null2"].Typeflag)
	require.Equal(t, []int64{1, 3}, []int64{headers["null2"].Devmajor, headers["null2"].Devminor})
	require.Equal(t, byte(tar.TypeFifo), headers["pipe"].Typeflag)
	require.Equal(t, byte(tar.TypeReg), headers["setuid"].Typeflag)
	require.Equal(t, int64(0o4755), headers["setuid"].Mode)
	d.RequireIdle(t)
}

// startWithRegistry is start for tests with images of their own.
func startWithRegistry(tb testing.TB, options harness.DaemonOptions) (*harness.Daemon, *harness.Registry) {
	tb.Helper()
	registry := harness.StartRegistry(tb)
	registry.PushBusybox(tb)
	options.Registry = registry
	return harness.StartDaemon(tb, options), registry
}

func TestABadDockerfileIsShownWithItsLine(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	for name, test := range map[string]struct {
		lines []string
		// line is that of the mistake, 0 for none.
		line int
		want string
	}{
		"an instruction that is not known": {[]string{"FROM busybox", "COPPY a b"}, 2, "unknown instruction: COPPY (did you mean COPY?)"},
		"a flag that is not known":         {[]string{"FROM busybox", "COPY --chonw=1 a b"}, 2, "unknown flag: --chonw"},
		"no stage":                         {[]string{"RUN true"}, 1, "no build stage in current context"},
		"a heredoc without end":            {[]string{"FROM busybox", "RUN <<x", "true"}, 2, "unterminated heredoc"},
		"an expansion without end":         {[]string{"FROM busybox", "ENV a=${b"}, 2, ""},
		"a mount that is not known":        {[]string{"FROM busybox", "RUN --mount=type=bnid,target=/x true"}, 2, "bnid"},
		"a copy of a stage from itself":    {[]string{"FROM busybox AS a", "COPY --from=a / /"}, 2, "a"},
		"a command that fails":             {[]string{"FROM busybox", "RUN true", "RUN echo said; exit 7"}, 3, "exit code: 7"},
		"a file that is not there":         {[]string{"FROM busybox", "", "COPY nosuch /"}, 3, `"/nosuch": not found`},
		"an image that is not there":       {[]string{"FROM nosuch:1"}, 1, "docker.io/library/nosuch:1: not found"},
		"a url that nobody serves":         {[]string{"FROM busybox", "ADD http://127.0.0.1:1/x /"}, 2, "failed to load cache key: Get \"http://127.0.0.1:1/x\": dial tcp 127.0.0.1:1: connect: connection refused"},
		"a repository that nobody serves":  {[]string{"FROM busybox", "ADD https://127.0.0.1:1/x.git /"}, 2, "unable to access 'https://127.0.0.1:1/x.git/'"},
		"an image to copy from":            {[]string{"FROM busybox", "COPY --from=nosuch:1 / /"}, 2, "docker.io/library/nosuch:1: not found"},
		"an image to mount":                {[]string{"FROM busybox", "RUN --mount=from=nosuch:1,target=/m true"}, 2, "docker.io/library/nosuch:1: not found"},
		"a stage that is not there":        {[]string{"FROM busybox AS build", "FROM busybox", "COPY --from=biuld / /"}, 3, "(did you mean build?)"},
		"a context that nobody serves":     {[]string{"FROM busybox", "COPY --from=served / /"}, 2, "connection refused"},
		"a context that is no image":       {[]string{"FROM image"}, 1, "docker.io/library/nosuch:1: not found"},
		"a context that is not given":      {[]string{"FROM dir"}, 1, `no access allowed to dir "nosuch"`},
		"a here-document with a slash":     {[]string{"FROM busybox", "COPY <<a/b /", "a/b"}, 2, `here-document "a/b" cannot be the name of a file`},
		"a value that doubles":             {append([]string{"FROM busybox", "ENV a=0123456789abcdef"}, slices.Repeat([]string{"ENV a=$a$a"}, 60)...), 23, "the result is longer than 16777216 bytes"},
		"blank lines":                      {[]string{"", ""}, 0, "file with no instructions"},
		"a line of a megabyte":             {[]string{"FROM busybox", "COPPY " + strings.Repeat("x", 1<<20)}, 0, "line greater than max allowed size"},
		"zero bytes":                       {[]string{"FROM busybox", "RU\x00N true"}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(harness.DockerfileArgs(dockerfile(t, test.lines...)), "--opt", "context:served=http://127.0.0.1:1/x",
				"--opt", "context:image=docker-image://nosuch:1", "--opt", "context:dir=local:nosuch")
			result := d.Buildctl(t, args...)
			require.Equal(t, 1, result.Code)
			require.Contains(t, errorMessage(t, result), test.want)
			if test.line > 0 {
				require.Contains(t, result.Stderr, fmt.Sprintf("Dockerfile:%d\n--------------------\n", test.line))
				require.Contains(t, result.Stderr, fmt.Sprintf("%4d | >>> ", test.line))
			}
		})
	}
	d.RequireIdle(t)
	requireAlive(t, d)
}
