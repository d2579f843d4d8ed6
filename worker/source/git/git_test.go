//go:build linux

package git

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
	sshsession "github.com/openbuildkit/buildkit/session/ssh"
	"github.com/openbuildkit/buildkit/worker/source"
)

func TestRefs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	one := r.head()
	r.git("tag", "light")
	r.git("tag", "-a", "-m", "note", "heavy")
	r.git("update-ref", "refs/pull/1/head", one)
	r.git("branch", "heavy-branch")
	r.git("branch", "both")
	r.write("two.txt", "two\n")
	two := r.commit("two")
	r.git("tag", "both")
	s := serve(t, root)
	b := newBench(t)
	heavy := r.git("rev-parse", "heavy")
	require.NotEqual(t, heavy, one)
	for ref, want := range map[string]string{
		"": two, "main": two, "heads/main": two, "refs/heads/main": two, "HEAD": two,
		"light": one, "heavy": one, "tags/heavy": one, "refs/tags/light": one,
		"refs/pull/1/head": one, "pull/1/head": one, "heavy-branch": one,
		"both": one, one: one, two: two,
	} {
		key, _, err := b.instance(s.url("r"), ref, nil, nil).Key(t.Context(), 0)
		require.NoError(t, err, ref)
		require.Equal(t, want, key.Pin, ref)
	}
	for ref, want := range map[string]string{"": two, "heavy": one, "pull/1/head": one, two: two} {
		tr := b.must(s.url("r"), ref, nil)
		_, hasTwo := tr.files["two.txt"]
		require.Equal(t, want == two, hasTwo, ref)
		require.Equal(t, "top\n", tr.files["top.txt"])
		require.Equal(t, "in\n", tr.files["sub/in.txt"])
		require.NotContains(t, tr.info, ".git")
	}
	for _, ref := range []string{"nosuch", "heads", one[:12], "main/", strings.Repeat("0", 39)} {
		id, err := b.parse(s.url("r"), ref, nil)
		if err == nil {
			_, _, err = (&instance{src: b.src, id: id, env: b.env(nil)}).Key(t.Context(), 0)
			require.EqualError(t, err, "repository does not contain ref "+ref+`, output: ""`)
		}
		require.Error(t, err)
	}
	_, err := b.fetch(s.url("r"), strings.Repeat("1", 40), nil)
	require.ErrorContains(t, err, "commit can not be found in the repository")
}

// A bare repository is one to servers. That it is on the daemon's machine opens it to nobody: a
// client may not read what the daemon may.
func TestBareRepositoriesAreReadFromServersOnly(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("tag", "-a", "-m", "note", "v1")
	bare := filepath.Join(root, "bare.git")
	r.git("clone", "-q", "--bare", r.dir, bare)
	mine, file := newKey(t)
	p, err := sshsession.NewProvider([]sshsession.AgentConfig{{Paths: []string{file}}})
	require.NoError(t, err)
	b := newBench(t, p)
	for _, u := range []string{
		serve(t, root).URL + "/bare.git", "git://" + gitDaemon(t, root) + "/bare.git", "ssh://git@" + serveSSH(t, mine.PublicKey()).addr + bare,
	} {
		a := attrs{}
		if strings.HasPrefix(u, "ssh") {
			a[pb.AttrGitMountSSHSock] = "default"
		}
		for _, ref := range []string{"", "v1", r.head()} {
			tr := b.must(u, ref, a)
			require.Equal(t, r.head(), tr.key.Pin, u)
			require.Equal(t, "in\n", tr.files["sub/in.txt"], u)
		}
	}
	for _, u := range []string{"file://" + bare, "file:" + bare, "file://localhost" + bare, "FILE://" + bare, bare, "local:://" + bare} {
		_, err := b.parse(u, "", nil)
		if err == nil {
			_, err = b.fetch(u, "", nil)
		}
		require.Error(t, err, u)
	}
}

func TestWhatParseRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const u = "https://h.example/r.git"
	for name, c := range map[string]struct {
		remote, fragment string
		attrs            attrs
	}{
		"an option as url":              {"--upload-pack=touch /tmp/x", "", nil},
		"a setting as url":              {"-c core.sshCommand=x", "", nil},
		"an option as host":             {"ssh://-oProxyCommand=x/r", "", nil},
		"an option as user":             {"ssh://-oProxyCommand=x@h/r", "", nil},
		"an option as short host":       {"git@-oProxyCommand=x:r", "", nil},
		"an option as path":             {"git@h:--upload-pack=x", "", nil},
		"a file":                        {"file:///srv/r.git", "", nil},
		"a command":                     {"ext::sh -c id", "", nil},
		"a helper":                      {"fd::7", "", nil},
		"a setting in the next line":    {"https://h/r\n[core]\nsshCommand=x", "", nil},
		"an option as ref":              {u, "--upload-pack=x", nil},
		"a short option as ref":         {u, "-c", nil},
		"a refspec as ref":              {u, "+refs/heads/*", nil},
		"a range as ref":                {u, "a..b", nil},
		"a reflog as ref":               {u, "main@{1}", nil},
		"a ref with a blank":            {u, "a b", nil},
		"a ref with a new line":         {u, "a\nb", nil},
		"a lock as ref":                 {u, "main.lock", nil},
		"a ref that hides":              {u, "refs/.hidden", nil},
		"the parent directory":          {u, ":../..", nil},
		"a parent further down":         {u, ":a/../../b", nil},
		"the git directory":             {u, ":.git/hooks", nil},
		"the git directory in capitals": {u, ":a/.GIT", nil},
		"a checksum that is none":       {u, "", attrs{pb.AttrGitChecksum: "--all"}},
		"a long checksum":               {u, "", attrs{pb.AttrGitChecksum: strings.Repeat("a", 65)}},
		"an unknown time":               {u, "", attrs{pb.AttrGitMTime: "yesterday"}},
		"no flag":                       {u, "", attrs{pb.AttrGitKeepDir: "perhaps"}},
		"a commit that nobody names":    {u, "main", attrs{pb.AttrGitFetchByCommit: "true"}},
		"a bundle of a part":            {u, "main:sub", attrs{pb.AttrGitCheckoutBundle: "true"}},
		"a bundle that keeps .git":      {u, "main", attrs{pb.AttrGitCheckoutBundle: "true", pb.AttrGitKeepDir: "true"}},
		"a key that is none":            {u, "", attrs{pb.AttrGitSigPubKey: "k"}},
		"a signature without a key":     {u, "", attrs{pb.AttrGitSigRequireSigned: "true"}},
		"a bundle without a digest":     {u, "", attrs{pb.AttrGitBundle: "docker-image+blob://x", pb.AttrGitChecksum: "a"}},
		"a bundle without a checksum":   {u, "", attrs{pb.AttrGitBundle: "docker-image+blob://x@sha256:" + strings.Repeat("a", 64)}},
		"a bundle that is a file":       {u, "", attrs{pb.AttrGitBundle: "file:///x@sha256:" + strings.Repeat("a", 64), pb.AttrGitChecksum: "a"}},
		"a bundle that is an image":     {u, "", attrs{pb.AttrGitBundle: "docker-image://x@sha256:" + strings.Repeat("a", 64), pb.AttrGitChecksum: "a"}},
	} {
		_, err := b.parse(c.remote, c.fragment, c.attrs)
		require.Error(t, err, name)
	}
	_, err := b.parse(u, "", attrs{pb.AttrGitChecksum: "xyz"})
	require.EqualError(t, err, "invalid checksum xyz for Git URL, expected hex commit hash")
	_, err = b.parse(u, "-x", nil)
	require.EqualError(t, err, `invalid git ref "-x"`)
}

func TestRefsNamedLikeOptionsAndGlobs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("update-ref", "refs/heads/--upload-pack=id", r.head())
	r.git("update-ref", "refs/heads/a'b$(id);x", r.head())
	s := serve(t, root)
	b := newBench(t)
	require.Equal(t, r.head(), b.must(s.url("r"), "refs/heads/--upload-pack=id", nil).key.Pin)
	require.Equal(t, r.head(), b.must(s.url("r"), "a'b$(id);x", nil).key.Pin)
	require.Equal(t, r.head(), b.must(s.url("r"), "heads/--upload-pack=id", attrs{pb.AttrGitKeepDir: "true"}).key.Pin)
}

func TestARefThatMovesIsNotFollowed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	one := r.head()
	s := serve(t, root)
	b := newBench(t)
	memo := &source.Memo{}
	i := b.instance(s.url("r"), "main", nil, memo)
	key, _, err := i.Key(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, one, key.Pin)
	r.write("two.txt", "two\n")
	r.commit("two")
	tr, err := b.take(i)
	require.NoError(t, err)
	require.NotContains(t, tr.files, "two.txt")
	tr, err = b.take(b.instance(s.url("r"), "main:sub", nil, memo))
	require.NoError(t, err)
	require.Equal(t, one, tr.key.Pin, "another step of the same build sees the same commit")

	// A server of the old kind gives only what a ref points at; then the history is fetched.
	old := serve(t, root, "protocol.version=0", "uploadpack.allowAnySHA1InWant=false")
	b = newBench(t)
	i = b.instance(old.url("r"), "main", nil, nil)
	_, _, err = i.Key(t.Context(), 0)
	require.NoError(t, err)
	r.write("three.txt", "three\n")
	r.commit("three")
	tr, err = b.take(i)
	require.NoError(t, err)
	require.NotContains(t, tr.files, "three.txt")

	// A commit that is gone from the history can't be had from it.
	b = newBench(t)
	i = b.instance(old.url("r"), "main", nil, nil)
	_, _, err = i.Key(t.Context(), 0)
	require.NoError(t, err)
	gone := i.found.commit
	r.git("reset", "-q", "--hard", one)
	r.git("reflog", "expire", "--expire=now", "--all")
	r.git("gc", "-q", "--prune=now")
	_, err = i.Fetch(t.Context())
	require.EqualError(t, err, "fetched ref refs/heads/main does not match expected commit "+gone+" and commit can not be found in the repository")
}

func TestOnlyTheCommitIsFetched(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	for n := range 3 {
		r.write("f", strings.Repeat("x", n))
		r.commit("more")
	}
	s := serve(t, root)
	b := newBench(t)
	commits := func() string {
		return strings.TrimSpace((&repo{t, b.shared()}).git("rev-list", "--all", "--count"))
	}
	b.must(s.url("r"), "main", nil)
	require.Equal(t, "1", commits())
	s.take()
	b.must(s.url("r"), "main", nil)
	require.Len(t, s.take(), 2, "a look at the ref, and no fetch")
	r.write("f", "changed")
	r.commit("next")
	b.must(s.url("r"), "main", nil)
	require.Equal(t, "2", commits())
}

func TestManyPacksBecomeOne(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	s := serve(t, root)
	b := newBench(t)
	b.must(s.url("r"), "main", nil)
	dir := b.shared()
	packs, err := filepath.Glob(filepath.Join(dir, "objects/pack/*.pack"))
	require.NoError(t, err)
	require.Len(t, packs, 1)
	for n := range maxPacks {
		for _, end := range []string{".pack", ".idx"} {
			data, err := os.ReadFile(strings.TrimSuffix(packs[0], ".pack") + end)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("objects/pack/pack-%040d%s", n, end)), data, 0o444))
		}
	}
	r.write("two.txt", "two")
	r.commit("two")
	require.Equal(t, "two", b.must(s.url("r"), "main", nil).files["two.txt"])
	packs, err = filepath.Glob(filepath.Join(dir, "objects/pack/*.pack"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(packs), 2)
	b.must(s.url("r"), r.git("rev-parse", "HEAD~"), nil)
}

func TestServersThatCantGiveASingleCommit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	one := r.head()
	r.write("two.txt", "two\n")
	r.commit("two")
	r.git("update-server-info")
	dumb := httptest.NewServer(http.FileServer(http.Dir(root)))
	defer dumb.Close()
	old := serve(t, root, "protocol.version=0")
	for name, u := range map[string]string{"dumb": dumb.URL + "/r/.git", "old": old.url("r")} {
		b := newBench(t)
		require.Equal(t, "two\n", b.must(u, "", nil).files["two.txt"], name)
		require.NotContains(t, b.must(u, one, nil).files, "two.txt", name)
		_, err := b.fetch(u, strings.Repeat("2", 40), nil)
		require.Error(t, err)
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("tag", "-a", "-m", "note", "v1")
	commit, tag := r.head(), r.git("rev-parse", "v1")
	s := serve(t, root)
	b := newBench(t)
	for _, sum := range []string{commit, commit[:7], tag, tag[:9]} {
		_, _, err := b.instance(s.url("r"), "v1", attrs{pb.AttrGitChecksum: sum}, nil).Key(t.Context(), 0)
		require.NoError(t, err)
	}
	b.must(s.url("r"), "v1", attrs{pb.AttrGitChecksum: tag})
	_, err := b.fetch(s.url("r"), "main", attrs{pb.AttrGitChecksum: "0123"})
	require.EqualError(t, err, "expected checksum to match 0123, got "+commit)
	var mismatch *ChecksumError
	_, err = b.fetch(s.url("r"), "v1", attrs{pb.AttrGitChecksum: "0123"})
	require.ErrorAs(t, err, &mismatch)
	s.take()
	tr := b.must(s.url("r"), "main", attrs{pb.AttrGitChecksum: commit, pb.AttrGitFetchByCommit: "true"})
	require.Equal(t, commit, tr.key.Pin)
	require.Empty(t, s.take(), "a commit that is here is not asked for")
}

func TestSHA256Repositories(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r", "--object-format=sha256")
	require.Len(t, r.head(), 64)
	b := newBench(t)
	s := serve(t, root)
	tr := b.must(s.url("r"), "", nil)
	require.Equal(t, r.head(), tr.key.Pin)
	require.Equal(t, "top\n", tr.files["top.txt"])
	tr = b.must(s.url("r"), r.head(), attrs{pb.AttrGitKeepDir: "true"})
	require.Equal(t, r.head()+"\n", tr.files[".git/HEAD"])
}

func TestBuildsShareARepository(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	var commits []string
	for _, name := range []string{"a", "b", "c", "d"} {
		r.write(name, name)
		commits = append(commits, r.commit(name))
	}
	s := serve(t, root)
	b := newBench(t)
	var wg sync.WaitGroup
	for _, c := range commits {
		for range 2 {
			wg.Go(func() {
				i := b.instance(s.url("r"), c, nil, nil)
				if _, _, err := i.Key(t.Context(), 0); err != nil {
					t.Error(err)
				}
				ref, err := i.Fetch(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_ = ref.Release(t.Context())
			})
		}
	}
	wg.Wait()
	b.shared()
}

func TestADamagedRepositoryIsMadeAnew(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	s := serve(t, root)
	b := newBench(t)
	b.must(s.url("r"), "", nil)
	dir := b.shared()
	for _, name := range []string{"shallow.lock", "refs/buildkit/x.lock", "config.lock", "objects/pack/tmp_pack_x"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	r.write("two.txt", "two")
	r.commit("two")
	require.Equal(t, "two", b.must(s.url("r"), "", nil).files["two.txt"], "locks that were left are removed")
	require.Equal(t, dir, b.shared())
	require.NoFileExists(t, filepath.Join(dir, "objects/pack/tmp_pack_x"))

	require.NoError(t, exec.Command("sh", "-c", "find "+dir+"/objects -type f -delete").Run())
	require.Equal(t, "two", b.must(s.url("r"), "", nil).files["two.txt"])
	require.NotEqual(t, dir, b.shared(), "another one took its place")
}
