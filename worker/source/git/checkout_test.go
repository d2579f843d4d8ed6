//go:build linux

package git

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

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

// A directory is what git would check out of it, whatever is above.
func TestAttributesAboveADirectoryCount(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	for name, content := range map[string]string{
		".gitattributes":          "*.txt eol=crlf\n*.id ident\n*.sub export-subst\n*.no export-ignore\n*.utf text working-tree-encoding=UTF-16LE\n",
		"sub/.gitattributes":      "*.lf text eol=lf\n[attr]none -text\n",
		"sub/deep/.gitattributes": "kept.txt -text\n",
		"sub/deep/kept.txt":       "a\nb\n", "sub/deep/er.txt": "a\nb\n", "sub/deep/x.lf": "a\n", "sub/deep/x.id": "$Id$\n",
		"sub/deep/x.sub": "$Format:%H$\n", "sub/deep/x.no": "here\n", "sub/deep/x.utf": "a\n", "sub/deep/-x.txt": "a\n",
		"other/o.txt": "a\n",
	} {
		r.write(name, content)
	}
	require.NoError(t, os.Chmod(filepath.Join(r.dir, "sub/deep/x.no"), 0o755))
	require.NoError(t, os.Symlink("er.txt", filepath.Join(r.dir, "sub/deep/link")))
	r.git("-c", "core.safecrlf=false", "add", "--all", ".")
	r.git("commit", "-q", "-m", "two")
	plain := filepath.Join(t.TempDir(), "c")
	require.NoError(t, exec.Command("git", "clone", "-q", r.dir, plain).Run())
	b := newBench(t)
	s := serve(t, root)
	whole := b.must(s.url("r"), "", nil)
	for _, dir := range []string{"sub", "sub/deep", "other"} {
		tr := b.must(s.url("r"), ":"+dir, nil)
		want := 0
		require.NoError(t, filepath.WalkDir(filepath.Join(plain, dir), func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			rel, err := filepath.Rel(filepath.Join(plain, dir), path)
			require.NoError(t, err)
			want++
			require.Contains(t, tr.modes, rel)
			if d.Type().IsRegular() {
				data, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, string(data), tr.files[rel], path)
				require.Equal(t, string(data), whole.files[filepath.Join(dir, rel)], path)
			}
			return nil
		}))
		require.Len(t, tr.modes, want, "nothing else is there")
	}
	deep := b.must(s.url("r"), ":sub/deep", nil)
	require.Equal(t, "a\r\nb\r\n", deep.files["er.txt"])
	require.Equal(t, "a\nb\n", deep.files["kept.txt"])
	require.Equal(t, fs.FileMode(0o755), deep.modes["x.no"])
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
