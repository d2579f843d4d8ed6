package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/upload"
)

// repository makes a repository with one commit of the files and serves it over http, through
// git's own program. hold, if not nil, is called before each request is served.
func repository(tb testing.TB, files map[string]string, hold func(*http.Request)) (url, dir string) {
	tb.Helper()
	root := tb.TempDir()
	dir = filepath.Join(root, "r")
	for name, text := range files {
		write(tb, filepath.Join(dir, name), text)
	}
	git(tb, dir, "init", "-q", "-b", "main")
	commit(tb, dir)
	backend := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=version=2",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hold != nil {
			hold(r)
		}
		r.URL.Path = strings.Replace(r.URL.Path, "/r.git", "/r/.git", 1)
		backend.ServeHTTP(w, r)
	}))
	tb.Cleanup(srv.Close)
	return srv.URL + "/r.git", dir
}

func git(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	cmd := exec.CommandContext(tb.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z",
	}
	out, err := cmd.CombinedOutput()
	require.NoError(tb, err, "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}

func commit(tb testing.TB, dir string) string {
	tb.Helper()
	git(tb, dir, "add", "--all", ".")
	git(tb, dir, "commit", "-q", "-m", "change")
	return git(tb, dir, "rev-parse", "HEAD")
}

func TestFilesAndRepositoriesAreAddedFromServers(t *testing.T) {
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	repo, dir := repository(t, map[string]string{"top.txt": "top", "sub/in.txt": "in"}, nil)
	web := httptest.NewServer(http.FileServer(http.Dir(tree(t, map[string]string{"d/page.txt": "page"}))))
	defer web.Close()
	page := strings.Replace(web.URL, "http://", "http://user:sesame@", 1) + "/d/page.txt"
	private := strings.Replace(repo, "http://", "http://user:sesame@", 1)
	context := dockerfile(t, "FROM scratch",
		"ADD "+page+" /f/",
		"ADD "+private+"#main:sub /sub",
		"ADD --keep-git-dir "+repo+" /all")
	out := t.TempDir()
	result := d.Build(t, context, toLocal(out), "--metadata-file="+filepath.Join(out, "meta.json"))
	require.Equal(t, "page", read(t, out, "f/page.txt"))
	require.Equal(t, "in", read(t, out, "sub/in.txt"))
	require.Equal(t, "top", read(t, out, "all/top.txt"))
	require.Equal(t, git(t, dir, "rev-parse", "HEAD"), strings.TrimSpace(read(t, out, "all/.git/HEAD")))
	require.NotContains(t, result.Stderr, "sesame")
	nobody := "http://user:sesame@127.0.0.1:1/r.git"
	literal := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM scratch", "ADD "+private+"#nosuch /x"))...)
	require.NotZero(t, literal.Code)
	require.Contains(t, literal.Stderr, ">>> ADD http://xxxxx@")
	require.NotContains(t, literal.Stderr, "sesame")
	for _, bad := range []string{page + ".nosuch", "http://user:sesame@127.0.0.1:1/x", private + "#nosuch", private + "#main:nosuch", nobody, nobody + "?colour=red"} {
		failed := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM scratch", "ARG URL", "ADD ${URL} /x"), "--opt=build-arg:URL="+bad)...)
		require.NotZero(t, failed.Code)
		require.NotContains(t, failed.Stderr, "sesame")
	}
	require.NotContains(t, d.Logs(), "sesame")
	require.NotContains(t, d.MustBuildctl(t, "du", "--verbose").Stdout, "sesame")
	require.Len(t, cached(d.Build(t, context)), 3, "nothing has changed")

	write(t, filepath.Join(dir, "sub/in.txt"), "changed")
	commit(t, dir)
	d.Build(t, context, toLocal(out))
	require.Equal(t, "changed", read(t, out, "sub/in.txt"))
	d.RequireIdle(t)
}

func TestContextsComeFromServersAndStreams(t *testing.T) {
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	files := map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "sub/Dockerfile": "FROM scratch\nCOPY in.txt /\n", "sub/in.txt": "in"}
	repo, dir := repository(t, files, nil)
	git(t, dir, "tag", "-a", "-m", "note", "v1")
	out := t.TempDir()
	build := func(args ...string) harness.Result {
		t.Helper()
		return d.MustBuildctl(t, append([]string{"build", "--progress=plain", "--frontend=dockerfile.v0", toLocal(out)}, args...)...)
	}
	build("--opt=context=" + repo + "#v1:sub")
	require.Equal(t, "in", read(t, out, "in.txt"))
	build("--opt=context=" + repo + "?branch=main")
	require.Equal(t, "in", read(t, out, "sub/in.txt"))
	require.NoDirExists(t, filepath.Join(out, ".git"))
	build("--opt=context="+repo, "--opt=build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
	require.DirExists(t, filepath.Join(out, ".git"))

	archive := archiveOf(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY a /from-archive\n", "a": "archive"})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) }))
	defer web.Close()
	build("--opt=context=" + web.URL + "/c.tar.gz")
	require.Equal(t, "archive", read(t, out, "from-archive"))

	named := dockerfile(t, "FROM scratch", "COPY --from=repo sub/in.txt /named-repo", "COPY --from=file /c.tar.gz /named-file")
	d.Build(t, named, toLocal(out), "--opt=context:repo="+repo, "--opt=context:file="+web.URL+"/c.tar.gz")
	require.Equal(t, "in", read(t, out, "named-repo"))
	require.Equal(t, string(archive), read(t, out, "named-file"))

	streams := upload.NewProvider()
	c, err := bkclient.New(d.Addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Solve(t.Context(), nil, bkclient.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: map[string]string{"context": streams.Add(io.NopCloser(bytes.NewReader(archive)))},
		Session:       []session.Attachable{streams},
		Exports:       []bkclient.Export{{Type: "local", OutputDir: filepath.Join(out, "stream")}},
	})
	require.NoError(t, err)
	require.Equal(t, "archive", read(t, out, "stream/from-archive"))
}

func archiveOf(tb testing.TB, files map[string]string) []byte {
	tb.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for name, text := range files {
		require.NoError(tb, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}))
		_, err := w.Write([]byte(text))
		require.NoError(tb, err)
	}
	require.NoError(tb, w.Close())
	require.NoError(tb, z.Close())
	return buf.Bytes()
}

// The daemon is killed in the middle of a fetch; git must not go on, and the next daemon fetches.
func TestADaemonKilledWhileItFetchesLeavesNothingInTheWay(t *testing.T) {
	var holding atomic.Bool
	reached, end := make(chan struct{}, 8), make(chan struct{})
	repo, dir := repository(t, map[string]string{"a": "a"}, func(r *http.Request) {
		if holding.Load() && r.Method == http.MethodPost {
			reached <- struct{}{}
			select {
			case <-end:
			case <-r.Context().Done():
			}
		}
	})
	defer close(end)
	d := harness.StartDaemon(t, harness.DaemonOptions{})
	context := dockerfile(t, "FROM scratch", "ADD "+repo+" /")
	d.Build(t, context)
	write(t, filepath.Join(dir, "b"), "b")
	commit(t, dir)
	holding.Store(true)
	c := launchBuild(t, d, context)
	select {
	case <-reached:
	case <-time.After(clientTimeout):
		t.Fatal("nothing is fetched")
	}
	d.Kill(t)
	c.wait(t)
	holding.Store(false)
	d.Start(t)
	out := t.TempDir()
	d.Build(t, context, toLocal(out))
	require.Equal(t, "b", read(t, out, "b"))
	d.RequireIdle(t)
}
