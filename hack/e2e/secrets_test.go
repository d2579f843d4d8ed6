package e2e_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// markPrefix begins every secret of these tests; what follows says where it was planted.
const markPrefix = "hunter2-4711-"

// marked returns a secret that tells where it was planted.
func marked(place string) string { return markPrefix + place }

// markForms are the forms in which a mark may show: as it is, in base64 wherever in the text it
// stands, in hexadecimal digits.
var markForms = func() [][]byte {
	forms := [][]byte{[]byte(markPrefix), []byte(hex.EncodeToString([]byte(markPrefix)))}
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), markPrefix...))
			// What the bytes around have a part in is left out.
			forms = append(forms, []byte(text[[]int{0, 2, 3}[shift]:len(text)-1]))
		}
	}
	return forms
}()

// leaks returns where in data marks are, with what is around them.
func leaks(data []byte) []string {
	var all []string
	for i, form := range markForms {
		for at := 0; ; {
			n := bytes.Index(data[at:], form)
			if n < 0 {
				break
			}
			at += n
			around := data[max(0, at-80):min(len(data), at+80)]
			if i > 1 {
				end := at
				for end < len(data) && end < at+60 && data[end] > ' ' && data[end] != '"' {
					end++
				}
				plain, _ := base64.RawStdEncoding.DecodeString(string(data[at : at+(end-at)/4*4]))
				around = append(slices.Clone(around), plain...)
			}
			all = append(all, fmt.Sprintf("%q", around))
			at += len(form)
		}
	}
	return all
}

// requireUnmarked fails the test if marks are in a text.
func requireUnmarked(tb testing.TB, what, text string) {
	tb.Helper()
	for _, leak := range leaks([]byte(text)) {
		tb.Errorf("%s: a secret: %s", what, leak)
	}
}

// requireNothingMarked fails the test if marks are in files below dir, or in what compressed files hold.
func requireNothingMarked(tb testing.TB, dir string) {
	tb.Helper()
	require.NoError(tb, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		requireUnmarked(tb, "the name", path)
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, data := range [][]byte{data, decompressed(data)} {
			for _, leak := range leaks(data) {
				tb.Errorf("%s: a secret: %s", path, leak)
			}
		}
		return nil
	}))
}

// decompressed returns what data holds if it is compressed.
func decompressed(data []byte) []byte {
	if r, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
		out, _ := io.ReadAll(r)
		return out
	}
	if r, err := zstd.NewReader(bytes.NewReader(data)); err == nil {
		defer r.Close()
		out, _ := io.ReadAll(r)
		return out
	}
	return nil
}

// planted is a daemon whose builds are given secrets, and what serves them.
type planted struct {
	*harness.Daemon
	registry *harness.Registry
	// web is host and port of a server that shows page.txt, c.tar.gz and the repository r.git to those
	// who have a secret, whatever kind of authorization that is in.
	web string
	// refs are the builds, last the latest.
	refs []string
}

func plant(t *testing.T, options harness.DaemonOptions) *planted {
	t.Helper()
	options.Args = append(options.Args, "--debug")
	d, registry := startWithRegistry(t, options)
	p := &planted{Daemon: d, registry: registry}
	files := map[string]string{"Dockerfile": "FROM scratch\nCOPY sub/in.txt /\n", "sub/in.txt": "in"}
	repo, _ := repository(t, files, nil)
	target, err := neturl.Parse(repo)
	require.NoError(t, err)
	git := httputil.NewSingleHostReverseProxy(&neturl.URL{Scheme: target.Scheme, Host: target.Host})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kind, credentials, _ := strings.Cut(r.Header.Get("Authorization"), " "); !strings.Contains(credentials, markPrefix) {
			if plain, _ := base64.StdEncoding.DecodeString(credentials); kind != "Basic" || !bytes.Contains(plain, []byte(markPrefix)) {
				w.Header().Set("WWW-Authenticate", `Basic realm="web"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/r.git"):
			git.ServeHTTP(w, r)
		case r.URL.Path == "/page.txt":
			_, _ = io.WriteString(w, "page")
		case r.URL.Path == "/c.tar.gz":
			_, _ = w.Write(archiveOf(t, files))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	p.web = strings.TrimPrefix(srv.URL, "http://")
	return p
}

// url returns one with a password in it that tells where it was planted.
func (p *planted) url(place, path string) string {
	return "http://user:" + marked(place) + "@" + p.web + "/" + path
}

// nowhere is a url that nobody serves, with a password in it.
func nowhere(place string) string { return "http://user:" + marked(place) + "@127.0.0.1:1/r.git" }

// build runs a build and checks what its client shows and what it is told.
func (p *planted) build(t *testing.T, context string, args ...string) harness.Result {
	t.Helper()
	return p.with(t, nil, append(harness.DockerfileArgs(context), args...)...)
}

func (p *planted) with(t *testing.T, env []string, args ...string) harness.Result {
	t.Helper()
	dir := t.TempDir()
	args = append(args, "--ref-file="+filepath.Join(dir, "ref"), "--metadata-file="+filepath.Join(dir, "meta.json"))
	c := prepare(t, p.Daemon, args...)
	c.cmd.Env = append(c.cmd.Env, env...)
	var stdout bytes.Buffer
	c.cmd.Stdout = &stdout
	c.start(t)
	r := c.wait(t)
	r.Stdout = stdout.String()
	requireUnmarked(t, "what buildctl shows", r.Stdout+r.Stderr)
	if ref, err := os.ReadFile(filepath.Join(dir, "ref")); err == nil {
		p.refs = append(p.refs, string(ref))
	}
	if meta, err := os.ReadFile(filepath.Join(dir, "meta.json")); err == nil {
		requireUnmarked(t, "the response", string(meta))
	}
	return r
}

// works is build for one that has to succeed, fails for one that must not.
func (p *planted) works(t *testing.T, context string, args ...string) harness.Result {
	t.Helper()
	r := p.build(t, context, args...)
	require.Zero(t, r.Code, r.Stderr)
	return r
}

func (p *planted) fails(t *testing.T, context string, args ...string) harness.Result {
	t.Helper()
	r := p.build(t, context, args...)
	require.NotZero(t, r.Code, r.Stderr)
	return r
}

// check looks for secrets in all that the daemon tells and has written.
func (p *planted) check(t *testing.T) {
	t.Helper()
	events := p.MustBuildctl(t, "debug", "histories", "--format=json").Stdout
	requireUnmarked(t, "the history", events)
	for _, dgst := range regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindAllString(events, -1) {
		if r := p.Buildctl(t, "debug", "get", dgst); r.Code == 0 {
			requireUnmarked(t, "a blob of the history", r.Stdout)
		}
	}
	for _, ref := range p.refs {
		requireUnmarked(t, "a replay", p.Buildctl(t, "debug", "logs", ref).Stdout)
		requireUnmarked(t, "a trace", p.Buildctl(t, "debug", "logs", "--trace", ref).Stdout)
	}
	requireUnmarked(t, "what uses the disk", p.MustBuildctl(t, "du", "--verbose").Stdout)
	p.Stop(t)
	requireUnmarked(t, "the log of the daemon", p.Logs())
	requireNothingMarked(t, filepath.Dir(p.Root))
	requireNothingMarked(t, p.registry.Dir)
}

func TestSecretsAreNowhere(t *testing.T) {
	p := plant(t, harness.DaemonOptions{})
	t.Run("of steps", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "s")
		write(t, file, marked("secret-file"))
		for _, last := range []string{"true", "false"} {
			dir := dockerfile(t, "FROM busybox",
				"RUN --mount=type=secret,id=file --mount=type=secret,id=env,env=TOKEN test -s /run/secrets/file && test -n \"$TOKEN\" && "+last)
			args := append(harness.DockerfileArgs(dir), "--secret=id=file,src="+file, "--secret=id=env,env=MARKED", "--opt=attest:provenance=")
			r := p.with(t, []string{"MARKED=" + marked("secret-env")}, args...)
			require.Equal(t, last == "false", r.Code != 0, r.Stderr)
		}
	})
	t.Run("of proxies", func(t *testing.T) {
		for _, last := range []string{"true", "false"} {
			var args []string
			for _, name := range []string{"HTTP_PROXY", "https_proxy", "FTP_PROXY", "all_proxy", "no_proxy"} {
				args = append(args, "--opt=build-arg:"+name+"="+nowhere("proxy-"+name))
			}
			r := p.build(t, dockerfile(t, "FROM busybox", "RUN env | grep -q "+markPrefix[:7]+" && "+last), append(args, "--opt=attest:provenance=")...)
			require.Equal(t, last == "false", r.Code != 0, r.Stderr)
		}
	})
	t.Run("in urls of files and repositories", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "ARG PAGE", "ARG REPO", "ARG BASE=busybox",
			"ADD ${PAGE} /page.txt", "ADD ${REPO}#main:sub /sub", "ADD --keep-git-dir ${REPO} /all", "RUN test -n \"$PAGE\"")
		page, repo := p.url("page", "page.txt"), p.url("repo", "r.git")
		p.works(t, dir, "--opt=attest:provenance=", "--opt=build-arg:PAGE="+page, "--opt=build-arg:REPO="+repo, "--progress=rawjson",
			"--output=type=image,name="+p.registry.Host+"/out/urls:1,push=true")
		for _, bad := range [][2]string{{page + ".nosuch", repo}, {page, repo + ".nosuch"}, {nowhere("no-page"), repo}, {page, nowhere("no-repo")}, {page, repo + "?colour=" + nowhere("query")}} {
			p.fails(t, dir, "--opt=build-arg:PAGE="+bad[0], "--opt=build-arg:REPO="+bad[1])
		}
		p.fails(t, dockerfile(t, "FROM busybox", "ARG URL", "RUN echo \"$URL\" >/dev/null; exit 7"), "--opt=build-arg:URL="+nowhere("run-arg"))
		p.fails(t, dockerfile(t, "ARG BASE", "FROM ${BASE}"), "--opt=build-arg:BASE="+nowhere("base"))
		p.fails(t, dockerfile(t, "FROM busybox", "ARG BASE", "COPY --from=${BASE} / /"), "--opt=build-arg:BASE="+nowhere("copy-from"))
		p.fails(t, dockerfile(t, "FROM busybox", "ARG BASE", "RUN --mount=from=${BASE},target=/x true"), "--opt=build-arg:BASE="+nowhere("mount-from"))
	})
	t.Run("in contexts", func(t *testing.T) {
		remote := func(url string, more ...string) harness.Result {
			return p.with(t, nil, append([]string{"build", "--progress=plain", "--frontend=dockerfile.v0", "--opt=context=" + url}, more...)...)
		}
		for _, good := range []string{p.url("context-repo", "r.git"), p.url("context-repo-ref", "r.git#main"), p.url("context-archive", "c.tar.gz")} {
			r := remote(good, "--opt=attest:provenance=", "--output=type=image,name="+p.registry.Host+"/out/context:1,push=true")
			require.Zero(t, r.Code, r.Stderr)
		}
		for _, bad := range []string{p.url("context-none", "x.git"), p.url("context-no-ref", "r.git#nosuch"), nowhere("context-nowhere"), p.url("context-text", "page.txt"), p.url("context-missing", "missing.tar.gz")} {
			require.NotZero(t, remote(bad).Code)
		}
		dir := dockerfile(t, "FROM busybox", "COPY --from=one sub/in.txt /one", "COPY --from=two page.txt /two")
		p.works(t, dir, "--opt=context:one="+p.url("named-repo", "r.git"), "--opt=context:two="+p.url("named-file", "page.txt"), "--opt=context:three="+nowhere("named-unused"), "--opt=attest:provenance=")
		p.fails(t, dir, "--opt=context:one="+nowhere("named-nowhere"))
		p.fails(t, dir, "--opt=context:one=docker-image://"+nowhere("named-image"), "--opt=context:two=oci-layout://"+nowhere("named-layout"))
		p.fails(t, dir, "--opt=context:one=ftp"+nowhere("named-scheme"))
	})
	p.check(t)
}
