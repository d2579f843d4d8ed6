//go:build linux

package git

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// object writes an object that git would not make, and returns it.
func (r *repo) object(kind, content string) string {
	r.t.Helper()
	cmd := exec.Command("git", "hash-object", "-w", "-t", kind, "--literally", "--stdin")
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(content)
	out, err := cmd.Output()
	require.NoError(r.t, err)
	return strings.TrimSpace(string(out))
}

// treeOf writes a tree of entries, each a mode, a name and an object, in the order given.
func (r *repo) treeOf(entries ...[3]string) string {
	r.t.Helper()
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s\x00", e[0], e[1])
		for n := 0; n < len(e[2]); n += 2 {
			var octet byte
			_, err := fmt.Sscanf(e[2][n:n+2], "%02x", &octet)
			require.NoError(r.t, err)
			b.WriteByte(octet)
		}
	}
	return r.object("tree", b.String())
}

// point makes main a commit of a tree.
func (r *repo) point(tree string) string {
	r.t.Helper()
	commit := r.git("commit-tree", "-m", "evil", tree)
	r.git("update-ref", "refs/heads/main", commit)
	return commit
}

const (
	file = "100644"
	link = "120000"
	dir  = "40000"
	mod  = "160000"
)

func TestNamesOfATreeLeadNowhere(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	s := serve(t, root)
	b := newBench(t)
	for name, evil := range map[string]func(r *repo, blob, sub string) string{
		"the parent":           func(r *repo, _, sub string) string { return r.treeOf([3]string{dir, "..", sub}) },
		"the directory itself": func(r *repo, _, sub string) string { return r.treeOf([3]string{dir, ".", sub}) },
		"a path":               func(r *repo, blob, _ string) string { return r.treeOf([3]string{file, "../x", blob}) },
		"a path from the root": func(r *repo, blob, _ string) string { return r.treeOf([3]string{file, outside + "/x", blob}) },
		"the git directory":    func(r *repo, _, sub string) string { return r.treeOf([3]string{dir, ".git", sub}) },
		"it in capitals":       func(r *repo, _, sub string) string { return r.treeOf([3]string{dir, ".GIT", sub}) },
		"a file below a link": func(r *repo, _, sub string) string {
			return r.treeOf([3]string{link, "a", r.object("blob", outside)}, [3]string{dir, "a", sub})
		},
		"a link above a folder": func(r *repo, _, sub string) string {
			return r.treeOf([3]string{dir, "a", sub}, [3]string{link, "a", r.object("blob", outside)})
		},
	} {
		path := strings.ReplaceAll(name, " ", "-")
		r := newRepo(t, root, path)
		blob := r.object("blob", "evil")
		r.point(evil(r, blob, r.treeOf([3]string{file, "x", blob})))
		for _, a := range []attrs{nil, {pb.AttrGitKeepDir: "true"}} {
			tr, err := b.fetch(s.url(path), "main", a)
			if links := strings.Contains(name, "link"); !links {
				require.ErrorContains(t, err, "invalid path", name)
			} else {
				require.NoError(t, err, name)
				require.Contains(t, tr.modes, "a", name)
			}
			b.sound(name)
		}
	}
	left, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, left)
}

// sound makes sure that nothing named x has come beside the trees.
func (b *bench) sound(what string) {
	b.t.Helper()
	require.NoError(b.t, filepath.WalkDir(b.dir, func(path string, _ os.DirEntry, err error) error {
		require.False(b.t, filepath.Base(path) == "x" && !strings.Contains(path, "/fs/"), "%s: %s", what, path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // what was given up is being removed
		}
		return err
	}))
}

func TestDirectoriesNamedLikeOptions(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	mark := filepath.Join(t.TempDir(), "ran")
	names := []string{"--upload-pack=touch " + mark, "-c", "-ccore.sshCommand=x", "--exec=id", ":(glob)x", "a b", "$(id)", "'", "-"}
	for _, name := range names {
		r.write(name+"/in", name)
	}
	r.commit("two")
	inner := newRepo(t, root, "inner")
	s := serve(t, root)
	b := newBench(t)
	for _, modules := range []bool{false, true} {
		if modules {
			r.git("submodule", "add", "-q", s.url(filepath.Base(inner.dir)), "inner")
			r.commit("with a module")
			names = names[:2] // all go the same way
		}
		for _, name := range names {
			require.Equal(t, map[string]string{"in": name}, b.must(s.url("r"), "main:"+name, nil).files)
		}
	}
	require.NoFileExists(t, mark)
}

func TestLinksInThePathOfADirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	inner := newRepo(t, root, "inner")
	require.NoError(t, os.Symlink("/etc", filepath.Join(inner.dir, "out")))
	inner.commit("two")
	r := newRepo(t, root, "r")
	s := serve(t, root)
	r.git("submodule", "add", "-q", s.url("inner"), "m")
	require.NoError(t, os.Symlink("/", filepath.Join(r.dir, "root")))
	require.NoError(t, os.Symlink("m", filepath.Join(r.dir, "alias")))
	r.commit("two")
	b := newBench(t)
	for dir, part := range map[string]string{"root": "root", "root/etc": "root", "m/out": "m/out", "m/out/ssl": "m/out", "alias/sub": "alias"} {
		_, err := b.fetch(s.url("r"), "main:"+dir, nil)
		require.EqualError(t, err, fmt.Sprintf("git subpath %q contains non-directory %q", dir, part))
	}
	require.Equal(t, map[string]string{"in.txt": "in\n"}, b.must(s.url("r"), "main:m/sub", nil).files)
}

func TestSubmodulesStayInTheirPlace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	inner := newRepo(t, root, "inner")
	inner.write("evil", "evil")
	at := inner.commit("two")
	s := serve(t, root)
	outside := t.TempDir()
	b := newBench(t)
	modules := func(name, path, url string) string {
		return fmt.Sprintf("[submodule %q]\n\tpath = %s\n\turl = %s\n", name, path, url)
	}
	for name, evil := range map[string]func(r *repo) (modules string, entries [][3]string){
		"a path that leads out": func(*repo) (string, [][3]string) {
			return modules("m", "../m", s.url("inner")), [][3]string{{mod, "m", at}}
		},
		"a path from the root": func(*repo) (string, [][3]string) {
			return modules("m", outside+"/m", s.url("inner")), [][3]string{{mod, "m", at}}
		},
		"a name that leads out": func(*repo) (string, [][3]string) {
			return modules("../../../../"+outside, "m", s.url("inner")), [][3]string{{mod, "m", at}}
		},
		"a name in the repository": func(*repo) (string, [][3]string) {
			return modules("../../hooks", "m", s.url("inner")), [][3]string{{mod, "m", at}}
		},
		"a path below a link": func(r *repo) (string, [][3]string) {
			return modules("m", "l/m", s.url("inner")), [][3]string{
				{link, "l", r.object("blob", outside)}, {dir, "l", r.treeOf([3]string{mod, "m", at})},
			}
		},
		"a path that is a link": func(r *repo) (string, [][3]string) {
			return modules("m", "l", s.url("inner")), [][3]string{{link, "l", r.object("blob", outside)}, {mod, "l", at}}
		},
		"a path that ends in a return": func(r *repo) (string, [][3]string) {
			return "[submodule \"m\"]\n\tpath = \"m\r\"\n\turl = " + s.url("inner") + "\n",
				[][3]string{{link, "m", r.object("blob", outside)}, {mod, "m\r", at}}
		},
		"a path in the repository": func(*repo) (string, [][3]string) {
			return modules("m", ".git/hooks", s.url("inner")), [][3]string{{mod, "m", at}}
		},
		"a path like an option": func(*repo) (string, [][3]string) {
			return modules("m", "--upload-pack=touch "+outside+"/x", s.url("inner")), [][3]string{{mod, "--upload-pack=touch " + outside + "/x", at}}
		},
		"a url like an option": func(*repo) (string, [][3]string) {
			return modules("m", "m", "--upload-pack=touch "+outside+"/x"), [][3]string{{mod, "m", at}}
		},
		"a url that is a line": func(*repo) (string, [][3]string) {
			return "[submodule \"m\"]\n\tpath = m\n\turl = \"" + s.url("inner") + "\\n[core]\\n\\tsshCommand = touch " + outside + "/x\"\n",
				[][3]string{{mod, "m", at}}
		},
		"a command as update": func(*repo) (string, [][3]string) {
			return modules("m", "m", s.url("inner")) + "\tupdate = !touch " + outside + "/x\n", [][3]string{{mod, "m", at}}
		},
		"modules that are a link": func(r *repo) (string, [][3]string) {
			return "", [][3]string{{link, ".gitmodules", r.object("blob", "/etc/passwd")}, {mod, "m", at}}
		},
	} {
		r := newRepo(t, root, strings.ReplaceAll(name, " ", "-"))
		text, entries := evil(r)
		if text != "" {
			entries = append([][3]string{{file, ".gitmodules", r.object("blob", text)}}, entries...)
		}
		r.point(r.treeOf(entries...))
		tr, err := b.fetch(s.url(filepath.Base(r.dir)), "main", attrs{pb.AttrGitKeepDir: "true"})
		switch passedOver := strings.HasSuffix(name, "link") && text != ""; {
		case passedOver:
			require.NoError(t, err, name)
			require.NotContains(t, tr.files, ".git/hooks/evil", name)
		case !strings.HasSuffix(name, "return"): // of which versions of git think differently
			require.Error(t, err, name)
		}
		left, err := os.ReadDir(outside)
		require.NoError(t, err)
		require.Empty(t, left, name)
	}
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
