package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	policypb "github.com/openbuildkit/buildkit/api/session/policy"
	"github.com/openbuildkit/buildkit/cache/blob/registry/registrytest"
	bkclient "github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/policy"
	"github.com/openbuildkit/buildkit/session/secrets"
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
	if len(data) == 0 {
		return nil
	}
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
// What is mounted there is not looked at.
func requireNothingMarked(tb testing.TB, dir string) {
	tb.Helper()
	disk := deviceOf(tb, dir)
	require.NoError(tb, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a daemon at work
		}
		if err != nil {
			return err
		}
		requireUnmarked(tb, "the name", path)
		if entry.IsDir() && deviceOf(tb, path) != disk {
			return fs.SkipDir
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || deviceOf(tb, path) != disk {
			return nil
		}
		if err != nil {
			return err
		}
		plain := decompressed(data)
		for _, data := range [][]byte{data, plain} {
			for _, leak := range leaks(data) {
				tb.Errorf("%s: a secret: %s", path, leak)
			}
		}
		return nil
	}))
}

// deviceOf returns the file system that a file is on, 0 if it is not there any more.
func deviceOf(tb testing.TB, path string) uint64 {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); !errors.Is(err, unix.ENOENT) {
		require.NoError(tb, err)
	}
	return st.Dev
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
			if plain, _ := base64.StdEncoding.DecodeString(credentials); !strings.EqualFold(kind, "basic") || !bytes.Contains(plain, []byte(markPrefix)) {
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
	c, err := bkclient.New(p.Addr)
	require.NoError(t, err)
	defer c.Close()
	blobs := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindAllString(events, -1)
	slices.Sort(blobs)
	for _, dgst := range slices.Compact(blobs) {
		var blob bytes.Buffer
		if c.ReadBlob(t.Context(), digest.Digest(dgst), &blob) == nil {
			requireUnmarked(t, "a blob of the history", blob.String())
		}
	}
	// The blobs are what replays are made of.
	for i := 0; i < len(p.refs); i += 10 {
		requireUnmarked(t, "a replay", p.Buildctl(t, "debug", "logs", p.refs[i]).Stdout)
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
			// Programs take addresses that are no urls too.
			args = append(args, "--opt=build-arg:HTTPS_PROXY=user:"+marked("proxy-address")+"@127.0.0.1:1")
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
	t.Run("of git and web servers", func(t *testing.T) {
		page, repo := "http://"+p.web+"/page.txt", "http://"+p.web+"/r.git"
		host, _, _ := strings.Cut(p.web, ":")
		dir := dockerfile(t, "FROM scratch", "ADD "+page+" /page.txt", "ADD "+repo+" /r", "ADD --keep-git-dir "+repo+" /kept")
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+marked("header")))
		files := func(values map[string]string) (args []string) {
			for id, value := range values {
				file := filepath.Join(t.TempDir(), "s")
				write(t, file, value)
				args = append(args, "--secret=id="+id+",src="+file)
			}
			return args
		}
		p.works(t, dir, append(files(map[string]string{"GIT_AUTH_TOKEN": marked("git-token"), "HTTP_AUTH_TOKEN_" + host: marked("http-token")}), "--opt=attest:provenance=")...)
		p.works(t, dir, append(files(map[string]string{"GIT_AUTH_HEADER": basic, "HTTP_AUTH_HEADER_" + host: basic}), "--no-cache")...)
		p.fails(t, dockerfile(t, "FROM scratch", "ADD "+repo+"#nosuch /r"), files(map[string]string{"GIT_AUTH_TOKEN." + p.web: marked("git-token-host")})...)
		p.fails(t, dockerfile(t, "FROM scratch", "ADD "+page+".nosuch /r"), files(map[string]string{"HTTP_AUTH_HEADER_" + host: basic})...)
		p.fails(t, dockerfile(t, "FROM scratch", "ADD "+page+" /r"), files(map[string]string{"HTTP_AUTH_HEADER_" + host: marked("no-header") + "\nX-Other: " + marked("header-lines")})...)
	})
	t.Run("of registries", func(t *testing.T) {
		for _, kind := range []string{"basic", "token"} {
			users := map[string]string{"ann": marked("registry-" + kind)}
			options := registrytest.Options{Users: users}
			if kind == "token" {
				options.Tokens = registrytest.StartTokens(t, registrytest.TokenOptions{Users: users, Rights: func(user, _ string) string {
					return map[string]string{"ann": "pull,push"}[user]
				}})
			}
			s := registrytest.Start(t, options)
			as := func(password string, args ...string) harness.Result {
				auth := base64.StdEncoding.EncodeToString([]byte("ann:" + password))
				dir := tree(t, map[string]string{"config.json": fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.Addr, auth)})
				r := p.with(t, []string{"DOCKER_CONFIG=" + dir}, args...)
				require.NotContains(t, r.Stdout+r.Stderr, "Bearer ey")
				return r
			}
			push := "--output=type=image,name=" + s.Addr + "/ann/app:1,push=true"
			r := as(users["ann"], harness.DockerfileArgs(dockerfile(t, "FROM busybox", "COPY Dockerfile /"), push, "--opt=attest:provenance=")...)
			require.Zero(t, r.Code, r.Stderr)
			r = as(users["ann"], harness.DockerfileArgs(dockerfile(t, "FROM "+s.Addr+"/ann/app:1", "COPY Dockerfile /again"), "--opt=attest:provenance=")...)
			require.Zero(t, r.Code, r.Stderr)
			require.NotZero(t, as(marked("registry-wrong"), harness.DockerfileArgs(dockerfile(t, "FROM scratch", "COPY Dockerfile /"), push)...).Code)
			require.NotZero(t, as(marked("registry-wrong"), harness.DockerfileArgs(dockerfile(t, "FROM "+s.Addr+"/ann/app:1"))...).Code)
		}
	})
	t.Run("of ssh", func(t *testing.T) {
		key := filepath.Join(t.TempDir(), "id")
		out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", marked("ssh-comment"), "-f", key).CombinedOutput()
		require.NoError(t, err, string(out))
		// The comment is in the key: where it is, the key is.
		require.NotEmpty(t, leaks([]byte(strings.ReplaceAll(read(t, key), "\n", ""))))
		for _, last := range []string{"true", "false"} {
			r := p.build(t, dockerfile(t, "FROM busybox", "RUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\" && "+last), "--ssh=default="+key, "--opt=attest:provenance=")
			require.Equal(t, last == "false", r.Code != 0, r.Stderr)
		}
		p.fails(t, dockerfile(t, "FROM scratch", "ADD git@127.0.0.1:x/y.git /r"), "--ssh=default="+key)
	})
	t.Run("in options", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "ARG LEVEL", "RUN true")
		for _, name := range []string{"label:source", "vcs:source", "build-arg:UNUSED", "build-arg:LEVEL", "unknown", "hostname", "add-hosts", "cgroup-parent", "no-cache"} {
			p.build(t, dir, "--opt="+name+"="+nowhere("opt-"+strings.ReplaceAll(name, ":", "-")), "--opt=attest:provenance=builder-id="+nowhere("builder-id"))
		}
		for _, name := range []string{
			"target", "platform", "filename", "build-arg:BUILDKIT_SYNTAX", "build-arg:BUILDKIT_DOCKERFILE_CHECK", "image-resolve-mode", "force-network-mode",
			"shm-size", "ulimit", "multi-platform", "requestid", "context:busybox", "build-arg:SOURCE_DATE_EPOCH", "contextsubdir", "contextkey", "dockerfilekey", "source",
			"attest:sbom", "attest:provenance", "attest:other", "build-arg:BUILDKIT_ATTEST_SBOM", "cache-imports", "sourcepolicy", "cmdline",
		} {
			p.build(t, dir, "--opt="+name+"="+nowhere("bad-"+strings.NewReplacer(":", "-", "_", "-").Replace(name)))
		}
		for _, name := range []string{"label:", "build-arg:", "vcs:", "context:", ""} {
			p.build(t, dir, "--opt="+name+nowhere("name-of-"+strings.TrimSuffix(name, ":"))+"=x", "--opt=attest:provenance=")
		}
		p.fails(t, dir, "--opt=attest:sbom=generator="+nowhere("generator"))
		p.fails(t, dir, "--opt=attest:sbom=generator=absent,proxy="+nowhere("scanner-parameter"))
		p.build(t, dir, "--opt=attest:provenance=mode="+nowhere("mode"))
	})
	t.Run("of outputs and caches", func(t *testing.T) {
		dir := dockerfile(t, "FROM busybox", "COPY Dockerfile /")
		for _, output := range []string{
			"type=image,name=" + nowhere("push-name") + ",push=true", "type=image,compression=" + nowhere("compression"),
			"type=image,other=" + nowhere("exporter-attribute"), "type=" + nowhere("exporter-type"), "type=oci,dest=/dev/null,name=" + nowhere("oci-name"),
			"type=image,annotation.x=" + nowhere("annotation") + ",oci-mediatypes=" + nowhere("switch"),
		} {
			p.build(t, dir, "--output="+output)
		}
		for _, cache := range []string{
			"type=gha,url=http://127.0.0.1:1/,token=" + marked("gha-token") + ",ghtoken=" + marked("gha-ghtoken"),
			"type=s3,bucket=b,region=r,endpoint_url=http://127.0.0.1:1,access_key_id=" + marked("s3-id") + ",secret_access_key=" + marked("s3-key") + ",session_token=" + marked("s3-token"),
			"type=azblob,account_url=http://127.0.0.1:1/x,account_name=x,secret_access_key=" + marked("az-key"),
			"type=registry,ref=" + nowhere("cache-ref"),
			"type=other,password=" + marked("other-password") + ",API-Token=" + marked("other-token"),
		} {
			p.build(t, dir, "--import-cache="+cache)
			p.build(t, dir, "--export-cache="+cache)
		}
	})
	t.Run("of policies", func(t *testing.T) {
		dir := dockerfile(t, "FROM scratch", "ADD http://"+p.web+"/page.txt /")
		from := "http://" + p.web + "/page.txt"
		p.works(t, dir, policyFile(t, converts(from, p.url("policy", "page.txt"))), "--opt=attest:provenance=")
		p.fails(t, dir, policyFile(t, converts(from, nowhere("policy-nowhere"))))
		p.fails(t, dir, policyFile(t, converts(from, nowhere("policy-denied")), denies("*hunter2*")))
		c, err := bkclient.New(p.Addr)
		require.NoError(t, err)
		defer c.Close()
		url := p.url("policy-session", "page.txt")
		local := fsOf(t, dockerfile(t, "FROM scratch", "ARG URL", "ADD ${URL} /"))
		for _, deny := range []bool{false, true} {
			seen := false
			ref := bkclient.NewRef()
			_, err = c.Solve(t.Context(), nil, bkclient.SolveOpt{
				Ref: ref, Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{"build-arg:URL": url}, LocalMounts: local,
				CheckSource: func(_ context.Context, req *policypb.CheckPolicyRequest) (*policypb.CheckPolicyResponse, error) {
					if id := req.GetSource().GetSource().GetIdentifier(); strings.HasPrefix(id, "http://") && deny {
						seen = true
						return policy.Deny("not " + id), nil
					}
					return policy.Allow(), nil
				},
			})
			require.Equal(t, deny, err != nil, err)
			require.Equal(t, deny, seen)
			if err != nil {
				requireUnmarked(t, "an error", err.Error())
			}
			p.refs = append(p.refs, ref)
		}
	})
	t.Run("of subrequests", func(t *testing.T) {
		dir := dockerfile(t, "ARG URL=http://x/", "FROM busybox", "ARG URL", "COPY --from=named / /y", "ADD ${URL} /x", "RUN --mount=type=secret,id=s true")
		for _, request := range []string{"outline", "targets", "lint", "convertllb"} {
			// What a client asks for it is told in full.
			ref, r := recorded(t, p.Daemon, dir, "--opt=requestid=frontend."+request, "--opt=build-arg:URL="+nowhere("subrequest-"+request),
				"--opt=context:named="+p.url("context-of-"+request, "r.git"))
			require.Zero(t, r.Code, r.Stderr)
			p.refs = append(p.refs, ref)
		}
	})
	t.Run("of frontends", func(t *testing.T) { p.plantInGateway(t) })
	p.check(t)
}

// plantInGateway plants secrets in what a frontend does: definitions, containers, warnings, metadata.
func (p *planted) plantInGateway(t *testing.T) {
	c, err := bkclient.New(p.Addr)
	require.NoError(t, err)
	defer c.Close()
	url := func(place string) string { return nowhere("gateway-" + place) }
	values := secrets.Values{"s": []byte(marked("gateway-secret"))}
	file := llb.NewSourceMap(nil, "f", "text", []byte("x "+url("file")+"\n"))
	def := func(command string) *pb.Definition {
		return marshal(t, llb.Image("busybox").Run(llb.Args("sh", "-c", command, url("argument")),
			llb.AddEnv("URL", url("env")), llb.AddSecretEnv("TOKEN", llb.SecretID("s")), llb.ProxyEnv{HTTP: url("proxy")},
			llb.CustomName("run with "+url("name")), llb.Description(map[string]string{"com.example": url("description")}),
			llb.ProgressGroup("group", "group "+url("group"), false), file.Location(&pb.Range{Start: &pb.Position{Line: 1}, End: &pb.Position{Line: 1}}),
		).File(llb.Mkfile("/none", 0o644, nil)))
	}
	header := marshal(t, llb.HTTP("http://"+p.web+"/page.txt", llb.Header("Authorization", "Bearer "+marked("header-attribute"))))
	for _, last := range []string{"true", "false"} {
		ref := bkclient.NewRef()
		_, err = c.Build(t.Context(), bkclient.SolveOpt{
			Ref: ref, Session: []session.Attachable{secrets.NewProvider(values)},
			FrontendAttrs: map[string]string{"url": url("option"), "attest:provenance": ""},
			Exports:       []bkclient.Export{{Type: "image", Attrs: map[string]string{"name": p.registry.Host + "/out/gateway:1", "push": "true"}}},
		}, "e2e", func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
			if _, err := g.Solve(ctx, gateway.SolveRequest{Definition: header, Evaluate: true}); err == nil {
				return nil, errors.New("a header that is not sent served")
			}
			res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def("test -n \"$TOKEN\" && test -n \"$URL\" && " + last), Evaluate: true})
			if err != nil {
				return nil, err
			}
			tree, err := res.SingleRef()
			if err != nil {
				return nil, err
			}
			dgst := digest.FromString(url("warning"))
			if err := g.Warn(ctx, dgst, "see "+url("warning"), gateway.WarnOpt{
				URL: url("warning-url"), Detail: [][]byte{[]byte(url("warning-detail"))}, Source: &pb.SourceInfo{Filename: "f", Data: []byte(url("warning-source"))},
			}); err != nil {
				return nil, err
			}
			ctr, err := g.NewContainer(ctx, gateway.NewContainerRequest{Hostname: "h", Mounts: []gateway.Mount{{Dest: "/", Ref: tree}}})
			if err != nil {
				return nil, err
			}
			for _, args := range [][]string{{"sh", "-c", "test -n \"$TOKEN\" && test -n \"$URL\""}, {"/nosuch", url("process-argument")}, {"false"}} {
				proc, err := ctr.Start(ctx, gateway.StartRequest{
					Args: args, Cwd: "/", Env: []string{"PATH=/bin", "URL=" + url("process-env")}, SecretEnv: []*pb.SecretEnv{{ID: "s", Name: "TOKEN"}},
				})
				if err == nil {
					err = proc.Wait()
				}
				if (args[0] == "sh") != (err == nil) {
					return nil, fmt.Errorf("%v ended with %w", args, err)
				}
			}
			res.SetMeta("other", []byte("see "+url("metadata")))
			return res, ctr.Release(ctx)
		})
		require.Equal(t, last == "false", err != nil, err)
		if err != nil {
			requireUnmarked(t, "an error", err.Error())
		}
		p.refs = append(p.refs, ref)
	}
}

// What a step or a fetch needs is in memory only, also while it runs: a machine may lose its power, and
// disks are copied.
func TestSecretsInUseAreOnNoDisk(t *testing.T) {
	p := plant(t, harness.DaemonOptions{})
	asked := make(chan struct{})
	var once sync.Once
	held := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password == marked("held") {
			once.Do(func() { close(asked) })
		}
		<-r.Context().Done()
	}))
	defer held.Close()
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, marked("step"))
	step := launchBuild(t, p.Daemon, dockerfile(t, "FROM busybox",
		"RUN --mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=s test -s /run/secrets/s && test -n \"$TOKEN\" && echo it runs && sleep 100"), "--secret=id=s,src="+file)
	fetch := launchBuild(t, p.Daemon, dockerfile(t, "FROM scratch", "ARG URL", "ADD ${URL} /"),
		"--opt=build-arg:URL="+strings.Replace(held.URL, "http://", "http://user:"+marked("held")+"@", 1)+"/r.git")
	step.await(t, "it runs\n")
	select {
	case <-asked:
	case <-fetch.done:
		t.Fatal(fetch.stderr.String())
	}
	requireNothingMarked(t, filepath.Dir(p.Root))
	p.Kill(t)
	held.CloseClientConnections() // git outlives the daemon
	step.wait(t)
	fetch.wait(t)
	requireNothingMarked(t, filepath.Dir(p.Root))
	p.Start(t)
}
