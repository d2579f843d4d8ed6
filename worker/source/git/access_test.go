//go:build linux

package git

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh/knownhosts"
	"google.golang.org/grpc/codes"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/session/secrets"
	"github.com/openbuildkit/buildkit/session/sessiontest"
	sshsession "github.com/openbuildkit/buildkit/session/ssh"
	"github.com/openbuildkit/buildkit/worker/source"
)

func TestCredentials(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	s := serve(t, root)
	host := s.Listener.Addr().String()
	token := func(v string) string { return "basic " + basic("x-access-token", v) }
	withUser := strings.Replace(s.url("r"), "http://", "http://user:secret@", 1)
	for name, c := range map[string]struct {
		secrets memory
		url     string
		attrs   attrs
		want    string
	}{
		"a header":                 {memory{"GIT_AUTH_HEADER": "Custom abc"}, s.url("r"), nil, "Custom abc"},
		"a token":                  {memory{"GIT_AUTH_TOKEN": "tok\n"}, s.url("r"), nil, token("tok")},
		"a token of the host":      {memory{"GIT_AUTH_TOKEN": "no", "GIT_AUTH_TOKEN." + host: "tok"}, s.url("r"), nil, token("tok")},
		"a header of the host":     {memory{"GIT_AUTH_TOKEN." + host: "no", "GIT_AUTH_HEADER." + host: "Custom h"}, s.url("r"), nil, "Custom h"},
		"names of the op":          {memory{"GIT_AUTH_TOKEN": "no", "mine": "tok"}, s.url("r"), attrs{pb.AttrGitAuthTokenSecret: "mine"}, token("tok")},
		"user and password":        {nil, withUser, nil, "Basic " + basic("user", "secret")},
		"odd characters in secret": {memory{"GIT_AUTH_HEADER": `a"b\c #d;e`}, s.url("r"), nil, `a"b\c #d;e`},
	} {
		s.mu.Lock()
		s.auth = c.want
		s.mu.Unlock()
		b := newBench(t, secrets.NewProvider(c.secrets))
		key, _, err := b.instance(c.url, "", c.attrs, nil).Key(t.Context(), 0)
		require.NoError(t, err, name)
		require.NotContains(t, b.logs.String(), "secret")
		require.NotContains(t, key.Value, "secret")
	}
	_, err := newBench(t, secrets.NewProvider(memory{"GIT_AUTH_HEADER": "a\n[core]\nsshCommand=x"})).fetch(s.url("r"), "", nil)
	require.ErrorContains(t, err, "more than one line")

	_, err = newBench(t).fetch(strings.Replace(withUser, "secret", "other-secret", 1), "", nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "other-secret")
	require.NotContains(t, err.Error(), "user")
	_, err = newBench(t).fetch(s.url("r"), "", nil)
	require.ErrorContains(t, err, "could not read Username")
	require.Equal(t, codes.PermissionDenied, status.Code(err))
}

// A commit is no secret: who knows it and has not the credentials gets nothing that was fetched
// with them, and a remote that claims to have it has to show it.
func TestWhatCredentialsOpenedIsForThoseWhoHaveThem(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	commit := r.head()
	s := serve(t, root)
	s.mu.Lock()
	s.auth = "right"
	s.mu.Unlock()
	b := newBench(t, secrets.NewProvider(memory{"GIT_AUTH_HEADER": "right"}))
	nobody := sessiontest.Join(t, b.src.cfg.Sessions, nil).ID()
	liar := sessiontest.Join(t, b.src.cfg.Sessions, nil, secrets.NewProvider(memory{"GIT_AUTH_HEADER": "wrong"})).ID()
	mine := b.must(s.url("r"), commit, nil)
	require.Equal(t, mine.key, b.must(s.url("r"), commit, nil).key)
	for _, session := range []string{nobody, liar} {
		b.session = session
		for _, a := range []attrs{nil, {pb.AttrGitChecksum: commit, pb.AttrGitFetchByCommit: "true"}} {
			i := b.instance(s.url("r"), commit, a, nil)
			key, _, err := i.Key(t.Context(), 0)
			if err == nil {
				require.NotEqual(t, mine.key.Value, key.Value)
				_, err = i.Fetch(t.Context())
			}
			require.ErrorContains(t, err, "failed to fetch remote")
		}
	}

	// Another remote says that its branch is that commit.
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/info/refs") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "%s\trefs/heads/main\n", commit)
	}))
	defer evil.Close()
	i := b.instance(evil.URL+"/r.git", "main", nil, nil)
	key, _, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, commit, key.Pin)
	require.NotEqual(t, mine.key.Value, key.Value)
	_, err = i.Fetch(t.Context())
	require.Error(t, err)
}

// Arguments can be read by everybody on the machine.
func TestCredentialsAreInNoArgument(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	var seen []string
	inner := serve(t, root).handler(root)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range procs {
			if line, err := os.ReadFile(p); err == nil && strings.Contains(string(line), "git") {
				seen = append(seen, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		inner.ServeHTTP(w, r)
	}))
	defer s.Close()
	b := newBench(t, secrets.NewProvider(memory{"GIT_AUTH_HEADER": "Hdr sesame"}))
	b.must(strings.Replace(s.URL, "http://", "http://user:sesame@", 1)+"/r/.git", "", nil)
	b.must(s.URL+"/r/.git", "", nil)
	all := strings.Join(seen, "\n")
	require.Contains(t, all, "ls-remote")
	require.Contains(t, all, "fetch")
	require.NotContains(t, all, "sesame")
	require.NotContains(t, all, basic("user", "sesame"))
}

func TestRedirectsCarryNoCredentials(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	newRepo(t, root, "r")
	other := serve(t, root)
	moved := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+strings.TrimPrefix(r.URL.String(), "/old"), http.StatusMovedPermanently)
	}))
	defer moved.Close()
	b := newBench(t)
	require.Contains(t, b.must(moved.URL+"/old/r/.git", "", nil).files, "top.txt", "without credentials redirects are followed")
	other.take()
	b = newBench(t, secrets.NewProvider(memory{"GIT_AUTH_TOKEN": "tok"}))
	_, err := b.fetch(moved.URL+"/old/r/.git", "", nil)
	require.Error(t, err)
	for _, asked := range other.take() {
		require.NotContains(t, asked, "asic")
	}
}

func TestARemoteThatWasRenamedIsFollowedOnItsHost(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	git := serve(t, root)
	git.auth = "basic " + basic("x-access-token", "tok")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if rest, ok := strings.CutPrefix(req.URL.String(), "/old"); ok {
			http.Redirect(w, req, "/r/.git"+rest, http.StatusMovedPermanently)
			return
		}
		git.handler(root).ServeHTTP(w, req)
	}))
	defer s.Close()
	b := newBench(t, secrets.NewProvider(memory{"GIT_AUTH_TOKEN": "tok"}))
	for _, ref := range []string{"main", r.head()} {
		tr := b.must(s.URL+"/old", ref, nil)
		require.Equal(t, r.head(), tr.key.Pin)
		require.Equal(t, "top\n", tr.files["top.txt"])
	}
}

func TestTheGitProtocol(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	tr := newBench(t).must("git://"+gitDaemon(t, root)+"/r", "main", nil)
	require.Equal(t, r.head(), tr.key.Pin)
	require.Equal(t, "top\n", tr.files["top.txt"])
}

func TestSSHWithTheAgentOfTheClient(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	mine, file := newKey(t)
	_, strange := newKey(t)
	s := serveSSH(t, mine.PublicKey())
	agents := func(file string) *sshsession.Provider {
		p, err := sshsession.NewProvider([]sshsession.AgentConfig{{Paths: []string{file}}})
		require.NoError(t, err)
		return p
	}
	u := "ssh://git@" + s.addr + root + "/r"
	known := knownhosts.Line([]string{s.addr}, s.host)
	a := attrs{pb.AttrGitMountSSHSock: "default", pb.AttrGitKnownSSHHosts: known}
	for name, a := range map[string]attrs{"known host": a, "any host": {pb.AttrGitMountSSHSock: "default"}} {
		tr, err := newBench(t, agents(file)).fetch(u, "main", a)
		require.NoError(t, err, name)
		require.Equal(t, r.head(), tr.key.Pin)
	}
	_, err := newBench(t, agents(strange)).fetch(u, "main", a)
	require.ErrorContains(t, err, "Permission denied")
	require.Equal(t, codes.PermissionDenied, status.Code(err))
	other, _ := newKey(t)
	_, err = newBench(t, agents(file)).fetch(u, "main", attrs{
		pb.AttrGitMountSSHSock: "default", pb.AttrGitKnownSSHHosts: knownhosts.Line([]string{s.addr}, other.PublicKey()),
	})
	require.ErrorContains(t, err, "REMOTE HOST IDENTIFICATION HAS CHANGED")
	_, err = newBench(t).fetch(u, "main", a)
	require.EqualError(t, err, `no SSH key "default" forwarded from the client`)
	_, err = newBench(t, agents(file)).fetch(u, "main", attrs{pb.AttrGitMountSSHSock: "other"})
	require.ErrorContains(t, err, "unset ssh forward key other")
}

func TestCancellingEndsGitAndItsChildren(t *testing.T) {
	t.Parallel()
	addr, connected := hanging(t)
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client went")
	go func() { <-connected; cancel(gone) }()
	start := time.Now()
	_, _, err := b.instance("http://"+addr+"/r.git", "", nil, nil).Key(ctx, 0)
	require.ErrorIs(t, err, gone)
	require.Less(t, time.Since(start), 20*time.Second)
	require.Eventually(t, func() bool { return len(processes(t, addr)) == 0 }, 10*time.Second, 20*time.Millisecond)
}

func TestResolveGit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("tag", "-a", "-m", "note", "v1")
	s := serve(t, root)
	b := newBench(t)
	meta, err := b.src.ResolveGit(t.Context(), b.instance(s.url("r"), "v1", nil, nil).id, false, source.Env{})
	require.NoError(t, err)
	require.Equal(t, "refs/tags/v1", meta.GetRef())
	require.Equal(t, r.git("rev-parse", "v1"), meta.GetChecksum())
	require.Equal(t, r.head(), meta.GetCommitChecksum())
	require.Empty(t, meta.GetCommitObject())

	meta, err = b.src.ResolveGit(t.Context(), b.instance(s.url("r"), "v1", nil, nil).id, true, source.Env{})
	require.NoError(t, err)
	require.Equal(t, r.git("cat-file", "commit", "HEAD"), strings.TrimSpace(string(meta.GetCommitObject())))
	require.Equal(t, r.git("cat-file", "tag", "v1"), strings.TrimSpace(string(meta.GetTagObject())))

	meta, err = b.src.ResolveGit(t.Context(), b.instance(s.url("r"), r.head(), nil, nil).id, true, source.Env{})
	require.NoError(t, err)
	require.Equal(t, r.head(), meta.GetChecksum())
	require.Empty(t, meta.GetCommitChecksum())
	require.Empty(t, meta.GetTagObject())
}

func FuzzParse(f *testing.F) {
	for _, s := range [][2]string{
		{"https://user:pass@h/r.git", "main:sub"},
		{"git@h:r", "v1"},
		{"--upload-pack=x", "-x:../.."},
		{"ssh://-oProxyCommand=x/r", ":a/./b"},
		{"ext::sh", strings.Repeat("a", 40)},
	} {
		f.Add(s[0], s[1], "ab", "commit")
	}
	option := regexp.MustCompile(`^-|\n|\x00`)
	f.Fuzz(func(t *testing.T, remote, fragment, checksum, mtime string) {
		id, err := parse("h/r#"+fragment, attrs{pb.AttrGitFullURL: remote, pb.AttrGitChecksum: checksum, pb.AttrGitMTime: mtime})
		if err != nil {
			return
		}
		for _, arg := range []string{id.Remote.Remote(), id.Ref, id.Checksum} {
			require.False(t, option.MatchString(arg), arg)
		}
		for part := range strings.SplitSeq(id.Subdir, "/") {
			require.NotEqual(t, "..", part)
			require.NotContains(t, part, "\x00")
		}
	})
}

func FuzzRefs(f *testing.F) {
	f.Add([]byte("ref: refs/heads/main\tHEAD\n"+strings.Repeat("a", 40)+"\tHEAD\n"), "")
	f.Add(fmt.Appendf(nil, "%040d\trefs/tags/v1\n%040d\trefs/tags/v1^{}\n", 1, 2), "v1")
	f.Fuzz(func(t *testing.T, out []byte, name string) {
		r := findRef(parseRefs(out), name)
		if r == nil {
			return
		}
		require.True(t, IsCommit(r.commit))
		require.True(t, r.tag == "" || IsCommit(r.tag))
		require.False(t, name == "" && !isRef(r.ref))
	})
}

func FuzzCommitted(f *testing.F) {
	f.Add([]byte("tree x\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1767225600 +0000\n\nm"))
	f.Add([]byte("committer > 9999999999999999999 \n"))
	f.Fuzz(func(_ *testing.T, object []byte) { _, _ = committed(object) })
}
