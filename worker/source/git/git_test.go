//go:build linux

package git

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
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

func TestModesAndLinks(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "run"), []byte("#!"), 0o755))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(r.dir, "link")))
	r.commit("two")
	tr := newBench(t).must(serve(t, root).url("r"), "", nil)
	require.Equal(t, fs.FileMode(0o644), tr.modes["top.txt"])
	require.Equal(t, fs.FileMode(0o755), tr.modes["run"])
	require.Equal(t, fs.ModeDir|0o755, tr.modes["sub"])
	require.Equal(t, fs.ModeSymlink, tr.modes["link"].Type())
}

func TestTheFirstVersionLetsEverybodyWrite(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "run"), []byte("#!"), 0o755))
	require.NoError(t, os.Symlink("top.txt", filepath.Join(r.dir, "link")))
	r.commit("two")
	s := serve(t, root)
	b := newBench(t)
	for _, a := range []attrs{nil, {pb.AttrGitKeepDir: "true"}} {
		now := b.instance(s.url("r"), "", a, nil)
		old := b.instance(s.url("r"), "", a, nil)
		old.env.Compat = compat.V10
		after, err := b.take(now)
		require.NoError(t, err)
		before, err := b.take(old)
		require.NoError(t, err)
		require.NotEqual(t, after.key.Value, before.key.Value)
		require.Equal(t, after.files["top.txt"], before.files["top.txt"])
		for name, mode := range after.modes {
			want := mode
			if mode == 0o644 && !strings.HasPrefix(name, ".git/") {
				want = 0o666
			}
			require.Equal(t, want, before.modes[name], name)
		}
		require.Equal(t, fs.FileMode(0o666), before.modes["sub/in.txt"])
	}
}

func TestSubdirs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.write("sub/deep/er.txt", "er")
	require.NoError(t, os.Symlink("sub", filepath.Join(r.dir, "link")))
	require.NoError(t, os.Symlink("/", filepath.Join(r.dir, "sub/root")))
	r.commit("two")
	s := serve(t, root)
	b := newBench(t)
	for _, dir := range []string{"sub/deep", "/sub//deep/", "./sub/./deep"} {
		tr := b.must(s.url("r"), r.head()+":"+dir, nil)
		require.Equal(t, map[string]string{"er.txt": "er"}, tr.files, dir)
		require.Contains(t, tr.key.Value, ":sub/deep ")
	}
	for dir, want := range map[string]string{
		"nodir":        `invalid subdir nodir: failed to lstat "nodir": statat nodir: no such file or directory`,
		"link":         `git subpath "link" contains non-directory "link"`,
		"link/deep":    `git subpath "link/deep" contains non-directory "link"`,
		"sub/root/etc": `git subpath "sub/root/etc" contains non-directory "sub/root"`,
		"top.txt":      `git subpath "top.txt" contains non-directory "top.txt"`,
		"-c/--exec=id": `invalid subdir -c/--exec=id: failed to lstat "-c/--exec=id": statat -c/--exec=id: no such file or directory`,
		":(glob)**":    `invalid subdir :(glob)**: failed to lstat ":(glob)**": statat :(glob)**: no such file or directory`,
	} {
		_, err := b.fetch(s.url("r"), r.head()+":"+dir, nil)
		require.EqualError(t, err, want, dir)
	}
	b.shared() // no failure has cost the repository
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

func TestTimes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(r.dir, "link")))
	r.commit("two")
	s := serve(t, root)
	b := newBench(t)
	start := time.Now().Add(-time.Second)
	tr := b.must(s.url("r"), "", attrs{pb.AttrGitMTime: "commit"})
	for name, info := range tr.info {
		require.Equal(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), info.ModTime().UTC(), name)
	}
	require.Contains(t, tr.key.Value, "(mtime=commit)")
	tr = b.must(s.url("r"), "", nil)
	require.True(t, tr.info["top.txt"].ModTime().After(start))
}

func TestTheGitDirectoryIsKept(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.git("tag", "-a", "-m", "note", "v1")
	s := serve(t, root)
	b := newBench(t)
	u := strings.Replace(s.url("r"), "http://", "http://user:secret@", 1)
	tr := b.must(u, "v1", attrs{pb.AttrGitKeepDir: "true"})
	require.Equal(t, r.head()+"\n", tr.files[".git/HEAD"])
	require.Contains(t, tr.files[".git/config"], "url = "+s.url("r"))
	for name, content := range tr.files {
		require.NotContains(t, content, "secret", name)
	}
	require.Equal(t, r.git("rev-parse", "v1")+"\n", tr.files[".git/refs/tags/v1"])
	require.Empty(t, tr.files[".git/logs/HEAD"])
	require.NotContains(t, tr.files, ".git/FETCH_HEAD")
	plain := b.must(u, "v1", nil)
	require.NotEqual(t, plain.key.Value, tr.key.Value)
	part := b.must(u, "v1:sub", attrs{pb.AttrGitKeepDir: "true"})
	require.Equal(t, map[string]string{"in.txt": "in\n"}, part.files, "a directory has no repository")

	out := t.TempDir()
	for name, content := range tr.files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(out, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(out, name), []byte(content), 0o644))
	}
	clone := &repo{t, out}
	require.NoError(t, os.MkdirAll(filepath.Join(out, ".git/refs/heads"), 0o755))
	require.Equal(t, "v1", clone.git("describe"))
	require.Equal(t, "1", clone.git("rev-list", "--count", "HEAD"))
	require.Empty(t, clone.git("status", "--porcelain"))
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	inner := newRepo(t, root, "inner")
	inner.write("inner.txt", "inner")
	inner.commit("two")
	middle := newRepo(t, root, "middle")
	s := serve(t, root)
	middle.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", s.url("inner"), "in")
	middle.commit("with inner")
	r := newRepo(t, root, "r")
	r.git("submodule", "add", "-q", s.url("middle"), "mods/middle")
	r.git("config", "-f", ".gitmodules", "submodule.mods/middle.url", "../../middle/.git")
	r.commit("with middle")
	b := newBench(t)
	tr := b.must(s.url("r"), "", nil)
	require.Equal(t, "inner", tr.files["mods/middle/in/inner.txt"])
	for name := range tr.info {
		require.NotEqual(t, ".git", filepath.Base(name))
	}
	require.Equal(t, "inner", b.must(s.url("r"), ":mods/middle/in", nil).files["inner.txt"])
	tr = b.must(s.url("r"), "", attrs{pb.AttrGitSkipSubmodules: "true"})
	require.NotContains(t, tr.files, "mods/middle/top.txt")
	require.Contains(t, tr.info, "mods/middle")
	tr = b.must(s.url("r"), "", attrs{pb.AttrGitKeepDir: "true"})
	require.Contains(t, tr.info, ".git")
	require.Equal(t, "inner", tr.files["mods/middle/in/inner.txt"])
}

func TestSubmodulesOfOddTransportsAreRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := serve(t, root)
	b := newBench(t)
	mark := filepath.Join(t.TempDir(), "ran")
	for name, u := range map[string]string{
		"file": "file://" + root + "/r/.git", "path": root + "/r/.git", "ext": "ext::sh -c 'touch " + mark + "'",
		"fd": "fd::7", "transport": "transport::address", "bundle": root + "/b.bundle", "git-file": "git+file://" + root + "/r/.git",
		"option": "--upload-pack=touch " + mark, "ssh": "ssh://-oProxyCommand=touch " + mark + "/x",
	} {
		r := newRepo(t, root, name)
		r.write(".gitmodules", "[submodule \"m\"]\n\tpath = m\n\turl = "+u+"\n\tupdate = !touch "+mark+"\n")
		r.git("update-index", "--add", "--cacheinfo", "160000,"+r.head()+",m")
		r.git("add", ".gitmodules")
		r.git("commit", "-q", "-m", "evil")
		_, err := b.fetch(s.url(name), r.head(), nil)
		require.Error(t, err, name)
		require.NoFileExists(t, mark, name)
		var failed *RemoteError
		require.ErrorAs(t, err, &failed, "the repository itself is good")
	}
}

// Everything by which a repository can make git run something, at once.
func TestNothingOfARepositoryIsRun(t *testing.T) {
	root := t.TempDir()
	mark := filepath.Join(t.TempDir(), "ran")
	r := newRepo(t, root, "r")
	r.write(".gitattributes", "* filter=evil diff=evil merge=evil\n")
	r.write(".git-hooks/post-checkout", "#!/bin/sh\ntouch "+mark+"\n")
	r.write(".gitconfig", "[core]\n\tfsmonitor = touch "+mark+"\n[filter \"evil\"]\n\tsmudge = touch "+mark+"\n")
	r.write(".lfsconfig", "[lfs]\n\turl = file:///\n")
	// A folder that git takes for a repository, with settings of its own.
	for name, content := range map[string]string{
		"HEAD": "ref: refs/heads/main\n", "refs/x": "", "objects/x": "",
		"config": "[core]\n\trepositoryformatversion = 0\n\tworktree = .\n\tfsmonitor = touch " + mark + "\n\tsshCommand = touch " + mark + "\n\thooksPath = .git-hooks\n",
	} {
		r.write(name, content)
		r.write("bare/"+name, content)
	}
	r.write("bare/top.txt", "top\n")
	r.commit("evil")
	s := serve(t, root)
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "filter.evil.smudge")
	t.Setenv("GIT_CONFIG_VALUE_0", "touch "+mark)
	t.Setenv("GIT_SSH_COMMAND", "touch "+mark)
	t.Setenv("GIT_DIR", root)
	b := newBench(t)
	inner := newRepo(t, root, "inner")
	for _, modules := range []bool{false, true} {
		if modules {
			r.git("submodule", "add", "-q", "--force", s.url(filepath.Base(inner.dir)), "bare/m")
			r.commit("with a module")
		}
		for _, ref := range []string{"", ":bare"} {
			for _, a := range []attrs{nil, {pb.AttrGitKeepDir: "true"}, {pb.AttrGitMTime: "commit"}, {pb.AttrGitCheckoutBundle: "true"}} {
				if a[pb.AttrGitCheckoutBundle] != "" && ref != "" {
					continue
				}
				tr := b.must(s.url("r"), ref, a)
				require.True(t, tr.files["top.txt"] == "top\n" || tr.files["bundle"] != "")
			}
		}
	}
	require.NoFileExists(t, mark)
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
