package browse_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/browse"
)

func TestReadFile(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), []byte("0123456789"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
	require.NoError(t, os.Symlink("/dir/../file", filepath.Join(root, "link")))
	require.NoError(t, os.Symlink("../../etc/passwd", filepath.Join(root, "out")))
	require.NoError(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	tree, err := browse.Open(root, "")
	require.NoError(t, err)
	defer tree.Close()
	for _, tc := range []struct {
		name   string
		file   string
		within *browse.Range
		want   string
		err    string
	}{
		{name: "a file", file: "file", want: "0123456789"},
		{name: "an absolute path", file: "/file", want: "0123456789"},
		{name: "a link leads on inside the tree", file: "link", want: "0123456789"},
		{name: "a range", file: "file", within: &browse.Range{Offset: 2, Length: 3}, want: "234"},
		{name: "a range beyond the end", file: "file", within: &browse.Range{Offset: 8, Length: 5}, want: "89"},
		{name: "a range behind the end", file: "file", within: &browse.Range{Offset: 20, Length: 5}},
		{name: "a negative range", file: "file", within: &browse.Range{Offset: -1}, err: "read file: invalid range -1+0"},
		{name: "nothing", file: "nosuch", err: "open nosuch: no such file or directory"},
		{name: "a link that leaves the tree", file: "out", err: "open out: no such file or directory"},
		{name: "a directory", file: "dir", err: "read dir: is a directory"},
		{name: "a pipe", file: "fifo", err: "read fifo: not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data, err := tree.ReadFile(tc.file, tc.within)
			if tc.err != "" {
				require.EqualError(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, string(data))
		})
	}
}

func TestReadDirAndStat(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"d/e", "part/sub"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for _, name := range []string{"d/b.go", "d/a.go", "d/c.txt", "part/sub/file"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(name), 0o640))
	}
	require.NoError(t, os.Symlink("/d", filepath.Join(root, "link")))
	require.NoError(t, os.Symlink("/../../..", filepath.Join(root, "top")))
	require.NoError(t, os.Symlink("/part/sub", filepath.Join(root, "selected")))
	tree, err := browse.Open(root, "/")
	require.NoError(t, err)
	defer tree.Close()

	names := func(p, pattern string) []string {
		entries, err := tree.ReadDir(p, pattern)
		require.NoError(t, err)
		var out []string
		for _, e := range entries {
			out = append(out, e.Path)
		}
		return out
	}
	require.Equal(t, []string{"a.go", "b.go", "c.txt", "e"}, names("/link", ""))
	require.Equal(t, []string{"a.go", "b.go"}, names("d", "*.go"))
	require.Equal(t, []string{"d", "link", "part", "selected", "top"}, names("/top", ""))
	_, err = tree.ReadDir("/d", "[")
	require.EqualError(t, err, `include pattern "[": syntax error in pattern`)
	_, err = tree.ReadDir("/nosuch", "")
	require.EqualError(t, err, "open /nosuch: no such file or directory")
	_, err = tree.ReadDir("/d/a.go", "")
	require.EqualError(t, err, "open /d/a.go: not a directory")

	st, err := tree.Stat("/link")
	require.NoError(t, err)
	require.Equal(t, "/d", st.Linkname, "the link itself")
	st, err = tree.Stat("link/a.go")
	require.NoError(t, err)
	require.Equal(t, "a.go", st.Path)
	require.EqualValues(t, len("d/a.go"), st.Size)
	st, err = tree.Stat("/")
	require.NoError(t, err)
	require.Equal(t, "/", st.Path)
	require.True(t, st.IsDir())
	_, err = tree.Stat("/nosuch")
	require.EqualError(t, err, "lstat /nosuch: no such file or directory")

	part, err := browse.Open(root, "/selected")
	require.NoError(t, err)
	defer part.Close()
	data, err := part.ReadFile("/../file", nil)
	require.NoError(t, err)
	require.Equal(t, "part/sub/file", string(data))
	_, err = browse.Open(root, "/d/a.go")
	require.EqualError(t, err, "open /d/a.go: not a directory")
	_, err = browse.Open(root, "/nosuch")
	require.EqualError(t, err, "open /nosuch: no such file or directory")
}

// A process in the tree may swap a folder for a link to the host at any moment.
func TestATreeThatIsBeingChangedLeadsNowhereElse(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "file"), []byte("of the host"), 0o644))
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "a"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "a", "file"), []byte("tree"), 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "b")))
	tree, err := browse.Open(root, "")
	require.NoError(t, err)
	defer tree.Close()
	stop, swapped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				swapped <- nil
				return
			default:
			}
			err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "a"), unix.AT_FDCWD, filepath.Join(root, "b"), unix.RENAME_EXCHANGE)
			if err != nil {
				swapped <- err
				return
			}
		}
	}()
	for range 3000 {
		if data, err := tree.ReadFile("/a/file", nil); err == nil {
			require.Equal(t, "tree", string(data))
		}
		if st, err := tree.Stat("/a/file"); err == nil {
			require.EqualValues(t, 4, st.Size)
		}
	}
	close(stop)
	require.NoError(t, <-swapped)
}
