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
