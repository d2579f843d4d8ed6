package fileop_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/fileop"
)

// lay writes a tree: "dir/", "file=text", "link->target", "name==first" for a hard link.
func lay(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e, "/"):
			require.NoError(t, os.MkdirAll(filepath.Join(dir, e), 0o755))
		case strings.Contains(e, "->"):
			name, to, _ := strings.Cut(e, "->")
			require.NoError(t, os.Symlink(to, filepath.Join(dir, name)))
		case strings.Contains(e, "=="):
			name, to, _ := strings.Cut(e, "==")
			require.NoError(t, os.Link(filepath.Join(dir, to), filepath.Join(dir, name)))
		default:
			name, text, _ := strings.Cut(e, "=")
			p := filepath.Join(dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
		}
	}
	return dir
}

// show lists a tree in the form that lay reads, without parents of what is listed.
func show(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, p)
		require.NoError(t, err)
		switch {
		case rel == ".":
		case d.IsDir():
			names, err := os.ReadDir(p)
			require.NoError(t, err)
			if len(names) == 0 {
				out = append(out, rel+"/")
			}
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			require.NoError(t, err)
			out = append(out, rel+"->"+to)
		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			out = append(out, rel+"="+string(data))
		default:
			out = append(out, rel+" "+d.Type().String())
		}
		return nil
	}))
	return out
}

func copyOf(src, dest string, change ...func(*pb.FileActionCopy)) *pb.FileAction {
	c := &pb.FileActionCopy{Src: src, Dest: dest, Mode: -1, Timestamp: -1, CreateDestPath: true, DirCopyContents: true, FollowSymlink: true, AllowWildcard: true, AllowEmptyWildcard: true}
	for _, f := range change {
		f(c)
	}
	return &pb.FileAction{Action: &pb.FileAction_Copy{Copy: c}}
}

func apply(t *testing.T, a *pb.FileAction, src, dst string) error {
	t.Helper()
	return fileop.Apply(t.Context(), a, fileop.Trees{Dest: dst, Source: src, Named: func(i int64) (string, error) { return dst, nil }})
}

func TestCopyPutsThingsWhereUsersExpectThem(t *testing.T) {
	from := []string{"a.txt=A", "b.txt=B", "d/x=X", "d/sub/y=Y", "link->d/x", "dlink->d", "empty/"}
	for _, c := range []struct {
		name, src, dest string
		into            []string
		opt             func(*pb.FileActionCopy)
		want            []string
		err             string
	}{
		{name: "a file to a new name", src: "a.txt", dest: "/new", want: []string{"new=A"}},
		{name: "a file into a directory named with a slash", src: "a.txt", dest: "/dir/", want: []string{"dir/a.txt=A"}},
		{name: "a file into a directory that is there", src: "a.txt", dest: "/dir", into: []string{"dir/"}, want: []string{"dir/a.txt=A"}},
		{name: "a file through a link to a directory", src: "a.txt", dest: "/l", into: []string{"dir/", "l->/dir"}, want: []string{"dir/a.txt=A", "l->/dir"}},
		{name: "a file over a file", src: "a.txt", dest: "/f", into: []string{"f=old"}, want: []string{"f=A"}},
		{name: "a file over a link to a file", src: "a.txt", dest: "/l", into: []string{"f=old", "l->f"}, want: []string{"f=A", "l->f"}},
		{name: "a file over a link to a file, replacing", src: "a.txt", dest: "/l", into: []string{"f=old", "l->f"}, opt: func(c *pb.FileActionCopy) { c.AlwaysReplaceExistingDestPaths = true }, want: []string{"f=A", "l->f"}},
		{name: "a file through a link to nothing", src: "a.txt", dest: "/l", into: []string{"l->../no"}, want: []string{"l->../no", "no=A"}},
		{name: "a nested file over a link replaces the link", src: "d", dest: "/", into: []string{"f=old", "x->f"}, want: []string{"f=old", "sub/y=Y", "x=X"}},
		{name: "contents through a link to nothing", src: "d", dest: "/l", into: []string{"l->/no"}, want: []string{"l->/no", "no/sub/y=Y", "no/x=X"}},
		{name: "a file through links without end", src: "a.txt", dest: "/l", into: []string{"l->l"}, err: "too many levels of symbolic links"},
		{name: "a directory that ends with a dot", src: "d/.", dest: "/dir", into: []string{"dir/"}, opt: func(c *pb.FileActionCopy) { c.DirCopyContents = false }, want: []string{"dir/sub/y=Y", "dir/x=X"}},
		{name: "the contents of a directory", src: "d", dest: "/to", want: []string{"to/sub/y=Y", "to/x=X"}},
		{name: "the contents of a directory through a link", src: "d", dest: "/l", into: []string{"dir/old=o", "l->dir"}, want: []string{"dir/old=o", "dir/sub/y=Y", "dir/x=X", "l->dir"}},
		{name: "a directory itself", src: "d", dest: "/to/", opt: func(c *pb.FileActionCopy) { c.DirCopyContents = false }, want: []string{"to/d/sub/y=Y", "to/d/x=X"}},
		{name: "a directory that merges", src: "d", dest: "/to", into: []string{"to/x=old", "to/z=Z"}, want: []string{"to/sub/y=Y", "to/x=X", "to/z=Z"}},
		{name: "a directory onto a file", src: "d", dest: "/f", into: []string{"f=old"}, err: "cannot copy to non-directory: /f"},
		{name: "a file below a file", src: "a.txt", dest: "/f/x", into: []string{"f=old"}, err: "mkdir /f: not a directory"},
		{name: "a nested file onto a directory", src: "d", dest: "/to", into: []string{"to/x/"}, err: "cannot replace to directory /to/x with file"},
		{name: "a nested file onto a directory, replacing", src: "d", dest: "/to", into: []string{"to/x/"}, opt: func(c *pb.FileActionCopy) { c.AlwaysReplaceExistingDestPaths = true }, want: []string{"to/sub/y=Y", "to/x=X"}},
		{name: "a pattern", src: "*.txt", dest: "/to/", want: []string{"to/a.txt=A", "to/b.txt=B"}},
		{name: "a pattern that matches nothing", src: "*.no", dest: "/to/"},
		{name: "a pattern that must match", src: "*.no", dest: "/to/", opt: func(c *pb.FileActionCopy) { c.AllowEmptyWildcard = false }, err: "*.no not found"},
		{name: "what a link leads to", src: "link", dest: "/f", want: []string{"f=X"}},
		{name: "a link as it is", src: "link", dest: "/f", opt: func(c *pb.FileActionCopy) { c.FollowSymlink = false }, want: []string{"f->d/x"}},
		{name: "a link as it is, with a slash", src: "dlink/", dest: "/f", opt: func(c *pb.FileActionCopy) { c.FollowSymlink = false }, want: []string{"f->d"}},
		{name: "a linked directory", src: "dlink", dest: "/to", want: []string{"to/sub/y=Y", "to/x=X"}},
		{name: "an empty directory", src: "empty", dest: "/to", want: []string{"to/"}},
		{name: "everything", src: "/", dest: "/", want: []string{"a.txt=A", "b.txt=B", "d/sub/y=Y", "d/x=X", "dlink->d", "empty/", "link->d/x"}},
		{name: "what patterns include", src: "/", dest: "/to", opt: func(c *pb.FileActionCopy) { c.IncludePatterns = []string{"d/**/y"} }, want: []string{"to/d/sub/y=Y"}},
		{name: "what patterns leave", src: "/d", dest: "/to", opt: func(c *pb.FileActionCopy) { c.ExcludePatterns = []string{"sub"} }, want: []string{"to/x=X"}},
		{name: "what patterns take back", src: "/", dest: "/to", opt: func(c *pb.FileActionCopy) { c.ExcludePatterns = []string{"*", "!a.txt"} }, want: []string{"to/a.txt=A"}},
		{name: "a missing file", src: "no", dest: "/x", opt: func(c *pb.FileActionCopy) { c.AllowWildcard = false }, err: "lstat /no: no such file or directory"},
		{name: "a missing file, where a pattern may match nothing", src: "no", dest: "/x", err: "lstat /no: no such file or directory"},
		{name: "a missing file with an escape", src: `n\*`, dest: "/x", err: "not found"},
		{name: "files of directories that a pattern matches, not of links", src: "*/x", dest: "/to/", want: []string{"to/x=X"}},
		{name: "files of links that no pattern matches", src: "dlink/x*", dest: "/to/", want: []string{"to/x=X"}},
		{name: "one new directory", src: "a.txt", dest: "/new/", opt: func(c *pb.FileActionCopy) { c.CreateDestPath = false }, want: []string{"new/a.txt=A"}},
		{name: "two new directories", src: "a.txt", dest: "/no/new/", opt: func(c *pb.FileActionCopy) { c.CreateDestPath = false }, err: "failed to stat /no/new/: lstat /no: no such file or directory"},
		{name: "no parents", src: "a.txt", dest: "/no/x", opt: func(c *pb.FileActionCopy) { c.CreateDestPath = false }, err: "failed to stat /no/x: lstat /no: no such file or directory"},
		{name: "outside", src: "../../../../etc/passwd", dest: "/x", opt: func(c *pb.FileActionCopy) { c.AllowWildcard = false }, err: "lstat /etc/passwd: no such file or directory"},
		{name: "what is required", src: "/d", dest: "/to", opt: func(c *pb.FileActionCopy) { c.RequiredPaths = []string{"/d/s*/y"} }, want: []string{"to/sub/y=Y", "to/x=X"}},
		{name: "what is required and missing", src: "/d", dest: "/to", opt: func(c *pb.FileActionCopy) { c.RequiredPaths = []string{"/sub/y"} }, err: "lstat /sub/y: no such file or directory"},
		{name: "to outside", src: "a.txt", dest: "../../x", want: []string{"x=A"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := lay(t, c.into...)
			var opts []func(*pb.FileActionCopy)
			if c.opt != nil {
				opts = append(opts, c.opt)
			}
			err := apply(t, copyOf(c.src, c.dest, opts...), lay(t, from...), dst)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.NotContains(t, err.Error(), dst)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, show(t, dst))
		})
	}
}

func TestCopyKeepsWhatFilesAre(t *testing.T) {
	src := lay(t, "d/one=1", "d/two==d/one", "d/sparse=")
	old := time.Unix(1_500_000_000, 123)
	require.NoError(t, unix.Mkfifo(filepath.Join(src, "d/fifo"), 0o640))
	require.NoError(t, os.Chmod(filepath.Join(src, "d/one"), 0o751|fs.ModeSetuid))
	require.NoError(t, os.Lchown(filepath.Join(src, "d/one"), 12, 34))
	require.NoError(t, os.Chmod(filepath.Join(src, "d/one"), 0o751|fs.ModeSetuid))
	require.NoError(t, unix.Setxattr(filepath.Join(src, "d/one"), "user.tag", []byte("v"), 0))
	require.NoError(t, os.Truncate(filepath.Join(src, "d/sparse"), 8<<20))
	require.NoError(t, os.Chtimes(filepath.Join(src, "d/one"), old, old))
	require.NoError(t, os.Chtimes(filepath.Join(src, "d"), old, old))
	dst := t.TempDir()
	require.NoError(t, apply(t, copyOf("d", "/to"), src, dst))
	var one, two, sparse, fifo, dir unix.Stat_t
	require.NoError(t, unix.Lstat(filepath.Join(dst, "to/one"), &one))
	require.NoError(t, unix.Lstat(filepath.Join(dst, "to/two"), &two))
	require.NoError(t, unix.Lstat(filepath.Join(dst, "to/sparse"), &sparse))
	require.NoError(t, unix.Lstat(filepath.Join(dst, "to/fifo"), &fifo))
	require.NoError(t, unix.Lstat(filepath.Join(dst, "to"), &dir))
	require.Equal(t, one.Ino, two.Ino)
	require.Equal(t, uint32(unix.S_IFREG|unix.S_ISUID|0o751), one.Mode)
	require.Equal(t, []uint32{12, 34}, []uint32{one.Uid, one.Gid})
	require.Equal(t, old.UnixNano(), unix.TimespecToNsec(one.Mtim))
	require.Equal(t, old.UnixNano(), unix.TimespecToNsec(dir.Mtim))
	require.Equal(t, int64(8<<20), sparse.Size)
	require.Less(t, sparse.Blocks*512, int64(1<<20))
	require.Equal(t, uint32(unix.S_IFIFO|0o640), fifo.Mode)
	v := make([]byte, 8)
	n, err := unix.Lgetxattr(filepath.Join(dst, "to/one"), "user.tag", v)
	require.NoError(t, err)
	require.Equal(t, "v", string(v[:n]))
}

func TestCopyChangesOwnerModeAndTime(t *testing.T) {
	passwd := "etc/passwd=root:x:0:0::/:\napp:x:1000:1001::/:\n"
	group := "etc/group=root:x:0:\nstaff:x:50:\n"
	byName := func(n string) *pb.UserOpt {
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: n}}}
	}
	byID := func(n uint32) *pb.UserOpt { return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: n}} }
	for name, c := range map[string]struct {
		owner *pb.ChownOpt
		want  [2]int
	}{
		"a known user":     {&pb.ChownOpt{User: byName("app")}, [2]int{1000, 1001}},
		"user and group":   {&pb.ChownOpt{User: byName("app"), Group: byName("staff")}, [2]int{1000, 50}},
		"an unknown user":  {&pb.ChownOpt{User: byName("ghost")}, [2]int{0, 0}},
		"an unknown group": {&pb.ChownOpt{User: byName("app"), Group: byName("ghost")}, [2]int{1000, 1001}},
		"numbers":          {&pb.ChownOpt{User: byID(7), Group: byID(8)}, [2]int{7, 8}},
	} {
		t.Run(name, func(t *testing.T) {
			dst := lay(t, passwd, group)
			a := copyOf("f", "/sub/f", func(c *pb.FileActionCopy) { c.Timestamp = 5e9 })
			a.GetCopy().Owner = c.owner
			require.NoError(t, apply(t, a, lay(t, "f=x"), dst))
			for _, p := range []string{"sub", "sub/f"} {
				var st unix.Stat_t
				require.NoError(t, unix.Lstat(filepath.Join(dst, p), &st))
				require.Equal(t, c.want, [2]int{int(st.Uid), int(st.Gid)}, p)
			}
			st, err := os.Stat(filepath.Join(dst, "sub/f"))
			require.NoError(t, err)
			require.Equal(t, int64(5), st.ModTime().Unix())
		})
	}
	t.Run("no tree for a name", func(t *testing.T) {
		a := copyOf("f", "/f")
		a.GetCopy().Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "x", Input: -1}}}}
		require.EqualError(t, apply(t, a, lay(t, "f=x"), t.TempDir()), "invalid user index: -1")
	})
	for modeStr, want := range map[string]fs.FileMode{"u+x": 0o744, "go=": 0o600, "a=rX": 0o444, "0751": 0o751} {
		dst := t.TempDir()
		require.NoError(t, apply(t, copyOf("f", "/f", func(c *pb.FileActionCopy) { c.ModeStr = modeStr }), lay(t, "f=x"), dst))
		st, err := os.Stat(filepath.Join(dst, "f"))
		require.NoError(t, err)
		require.Equal(t, want, st.Mode().Perm(), modeStr)
	}
	require.Error(t, apply(t, copyOf("f", "/f", func(c *pb.FileActionCopy) { c.ModeStr = "nonsense" }), lay(t, "f=x"), t.TempDir()))
}

func TestTheTargetOfContentsIsNoCopy(t *testing.T) {
	old := time.Unix(1_500_000_000, 0)
	src := lay(t, "d/sub/x=X")
	require.NoError(t, os.Chmod(filepath.Join(src, "d"), 0o700))
	require.NoError(t, os.Lchown(filepath.Join(src, "d"), 7, 8))
	for _, p := range []string{"d/sub/x", "d/sub", "d"} {
		require.NoError(t, os.Chtimes(filepath.Join(src, p), old, old))
	}
	octal := func(m int32) func(*pb.FileActionCopy) { return func(c *pb.FileActionCopy) { c.Mode = m } }
	for name, c := range map[string]struct {
		dest     string
		into     []string
		opt      func(*pb.FileActionCopy)
		to, sub  fs.FileMode
		atParent fs.FileMode
	}{
		"without a mode":                  {dest: "/a/to", opt: octal(-1), to: 0o755, sub: 0o755, atParent: 0o755},
		"special bits are for the copies": {dest: "/a/to", opt: octal(0o1711), to: 0o711, sub: 0o711 | fs.ModeSticky, atParent: 0o711},
		"and with a slash":                {dest: "/a/to/", opt: octal(0o1711), to: 0o711, sub: 0o711 | fs.ModeSticky, atParent: 0o711},
		"changes are for the copies":      {dest: "/a/to", opt: func(c *pb.FileActionCopy) { c.ModeStr = "go-r" }, to: 0o755, sub: 0o711, atParent: 0o755},
		"what is there keeps its mode":    {dest: "/a/to", into: []string{"a/to/"}, opt: octal(0o700), to: 0o755, sub: 0o700, atParent: 0o755},
	} {
		t.Run(name, func(t *testing.T) {
			dst := lay(t, c.into...)
			require.NoError(t, apply(t, copyOf("d", c.dest, c.opt), src, dst))
			for p, want := range map[string]fs.FileMode{"a": c.atParent, "a/to": c.to, "a/to/sub": c.sub} {
				st, err := os.Stat(filepath.Join(dst, p))
				require.NoError(t, err)
				require.Equal(t, want|fs.ModeDir, st.Mode(), p)
				require.Zero(t, st.Sys().(*syscall.Stat_t).Uid, p)
				if p != "a" {
					require.Equal(t, old.Unix(), st.ModTime().Unix(), p)
				}
			}
		})
	}
}

func TestHostileTreesStayInside(t *testing.T) {
	outside := lay(t, "secret=s")
	src := lay(t, "abs->"+outside+"/secret", "up->../../../../../../../"+outside+"/secret", "loop->loop")
	dst := lay(t, "esc->"+outside, "dir/")
	for _, p := range []string{"abs", "up", "loop"} {
		require.Error(t, apply(t, copyOf(p, "/x", func(c *pb.FileActionCopy) { c.AllowWildcard = false }), src, dst), p)
	}
	require.NoError(t, apply(t, copyOf("f", "/esc/f"), lay(t, "f=x"), dst))
	require.Equal(t, []string{"secret=s"}, show(t, outside))
	require.NoError(t, apply(t, &pb.FileAction{Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/esc/g", Mode: 0o644, Timestamp: -1}}}, "", dst))
	require.NoError(t, apply(t, &pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: "/esc"}}}, "", dst))
	require.Equal(t, []string{"secret=s"}, show(t, outside))
}

func TestSmallActions(t *testing.T) {
	mkdir := func(p string, parents bool) *pb.FileAction {
		return &pb.FileAction{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: p, Mode: 0o701, MakeParents: parents, Timestamp: -1}}}
	}
	mkfile := func(p, data string) *pb.FileAction {
		return &pb.FileAction{Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: p, Mode: 0o7640, Data: []byte(data), Timestamp: 1e9}}}
	}
	link := func(from, to string) *pb.FileAction {
		return &pb.FileAction{Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: from, Newpath: to, Timestamp: -1}}}
	}
	rm := func(p string, notFound, wild bool) *pb.FileAction {
		return &pb.FileAction{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: p, AllowNotFound: notFound, AllowWildcard: wild}}}
	}
	for _, c := range []struct {
		name string
		a    *pb.FileAction
		err  string
		want []string
	}{
		{"mkdir", mkdir("/n", false), "", []string{"a/f=x", "l->a", "n/"}},
		{"mkdir that is there", mkdir("/a", false), "", []string{"a/f=x", "l->a"}},
		{"mkdir without parents", mkdir("/n/m", false), "no such file or directory", nil},
		{"mkdir with parents", mkdir("/l/n/m", true), "", []string{"a/f=x", "a/n/m/", "l->a"}},
		{"mkdir over a file", mkdir("/a/f", true), "mkdir /a/f: not a directory", nil},
		{"mkfile", mkfile("/n", "N"), "", []string{"a/f=x", "l->a", "n=N"}},
		{"mkfile truncates", mkfile("/l/f", ""), "", []string{"a/f=", "l->a"}},
		{"mkfile over a directory", mkfile("/a", ""), "is a directory", nil},
		{"symlink", link("/a", "/s"), "", []string{"a/f=x", "l->a", "s->/a"}},
		{"symlink that is there", link("/a", "/l"), "symlink /l: file exists", nil},
		{"rm a tree", rm("/a", false, false), "", []string{"l->a"}},
		{"rm a link", rm("/l", false, false), "", []string{"a/f=x"}},
		{"rm what is not there", rm("/no", false, false), "stat /no: no such file or directory", nil},
		{"rm what is not there, allowed", rm("/no", true, false), "", []string{"a/f=x", "l->a"}},
		{"rm a pattern", rm("/a/*", false, true), "", []string{"a/", "l->a"}},
		{"rm a pattern of nothing", rm("/z*", false, true), "/z* not found", nil},
		{"rm a pattern whose files go by another name", rm("/*/f", false, true), "", []string{"a/", "l->a"}},
		{"rm nothing", rm("", false, false), "rmPath: invalid empty path", nil},
		{"rm everything", rm("/../", false, false), "rmPath: invalid empty path", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := lay(t, "a/f=x", "l->a")
			err := apply(t, c.a, "", dst)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.NotContains(t, err.Error(), dst)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, show(t, dst))
		})
	}
	dst := lay(t, "dangling->/no")
	require.NoError(t, apply(t, mkdir("/dangling", false), "", dst))
	require.Equal(t, []string{"dangling->/no", "no/"}, show(t, dst))
	require.NoError(t, apply(t, mkfile("/n", "N"), "", dst))
	st, err := os.Stat(filepath.Join(dst, "n"))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o640), st.Mode())
	require.Equal(t, int64(1), st.ModTime().Unix())
}

func TestNewDirectoriesHaveTheTimeOfTheAction(t *testing.T) {
	const when = 1_234_567_890
	parents := &pb.FileAction{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/a/b/c", Mode: 0o755, MakeParents: true, Timestamp: when * 1e9}}}
	file := copyOf("x", "/a/b/c", func(c *pb.FileActionCopy) { c.Timestamp = when * 1e9 })
	archive := copyOf("x.tar", "/a/b/c", func(c *pb.FileActionCopy) { c.Timestamp, c.AttemptUnpackDockerCompatibility = when*1e9, true })
	src := lay(t, "x=X", "x.tar="+string(archiveOf(t, &tar.Header{Name: "f", Mode: 0o644})))
	for name, a := range map[string]*pb.FileAction{"mkdir": parents, "copy": file, "unpack": archive} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			require.NoError(t, apply(t, a, src, dst))
			for _, p := range []string{"a", "a/b", "a/b/c"} {
				st, err := os.Stat(filepath.Join(dst, p))
				require.NoError(t, err)
				require.Equal(t, int64(when), st.ModTime().Unix(), p)
			}
		})
	}
}

func archiveOf(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		data := strings.Repeat("x", int(h.Size))
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func gz(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write(b)
	_ = w.Close()
	return buf.Bytes()
}

func TestArchivesAreUnpacked(t *testing.T) {
	plain := archiveOf(t, &tar.Header{Name: "dir/f", Mode: 0o640, Size: 3, Typeflag: tar.TypeReg},
		&tar.Header{Name: "../../up", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg},
		&tar.Header{Name: ".wh.kept", Mode: 0o644, Typeflag: tar.TypeReg})
	unpack := func(c *pb.FileActionCopy) { c.AttemptUnpackDockerCompatibility = true }
	for name, c := range map[string]struct {
		data []byte
		want []string
		err  string
	}{
		"plain":           {data: plain, want: []string{"to/.wh.kept=", "to/dir/f=xxx", "to/up=x"}},
		"gzip":            {data: gz(plain), want: []string{"to/.wh.kept=", "to/dir/f=xxx", "to/up=x"}},
		"text":            {data: []byte("no archive"), want: []string{"to/a.tar=no archive"}},
		"compressed text": {data: gz([]byte("no archive")), want: []string{"to/a.tar=" + string(gz([]byte("no archive")))}},
		"nothing":         {data: nil, want: []string{"to/a.tar="}},
		"cut off":         {data: gz(archiveOf(t, &tar.Header{Name: "f", Mode: 0o644, Size: 1 << 20, Typeflag: tar.TypeReg}))[:600], err: "unpack /a.tar"},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(src, "a.tar"), c.data, 0o644))
			err := apply(t, copyOf("a.tar", "/to/", unpack), src, dst)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, show(t, dst))
		})
	}
}

func TestPlan(t *testing.T) {
	act := func(in, second, out int64) *pb.FileAction {
		return &pb.FileAction{Input: in, SecondaryInput: second, Output: out}
	}
	steps, err := fileop.Plan([]*pb.FileAction{act(3, -1, 0), act(0, 1, -1)}, 2)
	require.NoError(t, err)
	require.Len(t, steps, 2)
	require.Equal(t, fileop.Operand{Kind: fileop.Input, Index: 0}, steps[0].Base)
	require.Equal(t, fileop.Operand{Kind: fileop.Input, Index: 1}, steps[0].Source)
	require.Equal(t, 1, steps[0].Uses)
	require.Equal(t, fileop.Operand{Kind: fileop.Action, Index: 0}, steps[1].Base)
	for want, actions := range map[string][]*pb.FileAction{
		"no outputs specified":               {act(0, -1, -1)},
		"duplicate output 0":                 {act(0, -1, 0), act(0, -1, 0)},
		"missing output index 0":             {act(0, -1, 1)},
		"invalid input index 9, 2 provided":  {act(9, -1, 0)},
		"invalid input index -2, 2 provided": {act(-2, -1, 0)},
		"loop from index 0":                  {act(1, -1, 0)},
	} {
		_, err := fileop.Plan(actions, 1)
		require.EqualError(t, err, want, fmt.Sprint(actions))
	}
	long := []*pb.FileAction{act(-1, -1, -1)}
	for i := range int64(10000) {
		long = append(long, act(i, -1, -1))
	}
	long[len(long)-1].Output = 0
	_, err = fileop.Plan(long, 0)
	require.NoError(t, err)
}
