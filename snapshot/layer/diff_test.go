//go:build linux

package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/continuity/sysx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func read(t *testing.T, b *bytes.Buffer) map[string]*tar.Header {
	all := map[string]*tar.Header{}
	r := tar.NewReader(b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all[h.Name] = h
	}
}

func names(t *testing.T, b *bytes.Buffer) []string {
	var all []string
	r := tar.NewReader(b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, h.Name)
	}
}

func put(t *testing.T, dir string, files ...string) {
	for _, f := range files {
		p := filepath.Join(dir, f)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(f), 0o644))
	}
}

func TestEntriesHaveWhatAFileHas(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "f", "d/x")
	f := filepath.Join(dir, "f")
	require.NoError(t, os.Link(f, filepath.Join(dir, "z-hard")))
	require.NoError(t, os.Symlink("f", filepath.Join(dir, "link")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	t.Chdir(dir) // the path of a socket is short
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}))
	require.NoError(t, os.Chown(f, 1234, 99))
	require.NoError(t, os.Chmod(f, 0o4711|os.ModeSetuid))
	require.NoError(t, sysx.LSetxattr(f, "user.color", []byte("red"), 0))
	require.NoError(t, sysx.LSetxattr(f, "trusted.overlay.origin", []byte("x"), 0))
	require.NoError(t, os.Chtimes(f, time.Time{}, time.Unix(1700000000, 999)))

	var b bytes.Buffer
	require.NoError(t, WriteChanges(t.Context(), &b, Stack{}, Tree(dir), nil))
	all := read(t, &b)
	require.Len(t, all, 7, "a socket has no form in an archive")
	h := all["f"]
	require.EqualValues(t, tar.TypeReg, h.Typeflag)
	require.Equal(t, 1234, h.Uid)
	require.Equal(t, 99, h.Gid)
	require.EqualValues(t, 0o4711, h.Mode)
	require.True(t, h.ModTime.Equal(time.Unix(1700000000, 0)), "whole seconds")
	require.Empty(t, h.Uname)
	require.Equal(t, map[string]string{xattrRecord + "user.color": "red"}, h.PAXRecords)
	require.EqualValues(t, tar.TypeLink, all["z-hard"].Typeflag)
	require.Equal(t, "f", all["z-hard"].Linkname)
	require.Equal(t, "f", all["link"].Linkname)
	require.EqualValues(t, tar.TypeFifo, all["fifo"].Typeflag)
	require.EqualValues(t, 3, all["null"].Devminor)
	require.Contains(t, all, "d/")
}

func TestChangesAreFoundByComparing(t *testing.T) {
	lower, upper := t.TempDir(), t.TempDir()
	old := time.Unix(1700000000, 5)
	for _, dir := range []string{lower, upper} {
		put(t, dir, "same", "same-dir/x", "changed", "times", "mode", "dir-to-file/x", "file-to-dir", "deep/er/x", "deep/er/gone", "seconds", "touched/x")
		for _, n := range []string{"same", "changed", "times", "mode", "same-dir/x", "same-dir", "deep/er/x", "touched/x"} {
			require.NoError(t, os.Chtimes(filepath.Join(dir, n), old, old))
		}
		require.NoError(t, os.Chtimes(filepath.Join(dir, "seconds"), time.Unix(5, 0), time.Unix(5, 0)))
	}
	put(t, lower, "gone/x")
	put(t, upper, "new/x")
	require.NoError(t, os.WriteFile(filepath.Join(upper, "changed"), []byte("another length"), 0o644))
	require.NoError(t, os.Chtimes(filepath.Join(upper, "times"), old, old.Add(1)))
	require.NoError(t, os.Chmod(filepath.Join(upper, "mode"), 0o600))
	require.NoError(t, os.RemoveAll(filepath.Join(upper, "dir-to-file")))
	put(t, upper, "dir-to-file")
	require.NoError(t, os.Remove(filepath.Join(upper, "file-to-dir")))
	put(t, upper, "file-to-dir/x")
	require.NoError(t, os.Remove(filepath.Join(upper, "deep/er/gone")))
	require.NoError(t, os.WriteFile(filepath.Join(upper, "seconds"), []byte("SECONDS"), 0o644))
	require.NoError(t, os.Chtimes(filepath.Join(upper, "seconds"), time.Unix(5, 0), time.Unix(5, 0)))

	var b bytes.Buffer
	require.NoError(t, WriteChanges(t.Context(), &b, Tree(lower), Tree(upper), nil))
	require.Equal(t, []string{
		"changed", "deep/", "deep/er/", "deep/er/.wh.gone", "dir-to-file", "file-to-dir/", "file-to-dir/x",
		".wh.gone", "mode", "new/", "new/x", "seconds", "times", "touched/",
	}, names(t, &b))
}

func TestAFolderThatWasOnlyCopiedUpIsNotWritten(t *testing.T) {
	base, upper := t.TempDir(), t.TempDir()
	old := time.Unix(1000, 5)
	put(t, base, "etc/hosts", "a/b/c/f", "mode/x", "time/x")
	put(t, upper, "a/b/c/new")
	for _, dir := range []string{"etc", "mode", "time"} {
		require.NoError(t, os.Mkdir(filepath.Join(upper, dir), 0o755))
	}
	for _, root := range []string{base, upper} {
		for _, dir := range []string{"etc", "mode", "time", "a/b/c", "a/b", "a"} {
			require.NoError(t, os.Chmod(filepath.Join(root, dir), 0o755))
			require.NoError(t, os.Chtimes(filepath.Join(root, dir), old, old))
		}
	}
	require.NoError(t, os.Chmod(filepath.Join(upper, "mode"), 0o700))
	require.NoError(t, os.Chtimes(filepath.Join(upper, "time"), old, old.Add(1)))
	var b bytes.Buffer
	require.NoError(t, WriteUpper(t.Context(), &b, Upper{Dir: upper, Lowers: []string{base}, Xattrs: TrustedXattrs}))
	require.Equal(t, []string{"a/", "a/b/", "a/b/c/", "a/b/c/new", "mode/", "time/"}, names(t, &b))
}

func TestAnOpaqueFolderIsWrittenAsRemovals(t *testing.T) {
	base, middle, upper := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, base, "d/a", "d/b", "d/sub/x", "other/y")
	put(t, middle, "d/c", "d/sub/z")
	require.NoError(t, unix.Mknod(filepath.Join(middle, "d/b"), unix.S_IFCHR, 0))
	put(t, upper, "d/new", "d/sub/z")
	require.NoError(t, TrustedXattrs.SetOpaque(filepath.Join(upper, "d")))
	require.NoError(t, unix.Mknod(filepath.Join(upper, "w"), unix.S_IFCHR, 0))
	var b bytes.Buffer
	require.NoError(t, WriteUpper(t.Context(), &b, Upper{Dir: upper, Lowers: []string{middle, base}, Xattrs: TrustedXattrs}))
	require.Equal(t, []string{"d/", "d/.wh.a", "d/.wh.c", "d/new", "d/sub/", "d/sub/.wh.x", "d/sub/z", ".wh.w"}, names(t, &b))

	// A folder that is opaque in the middle hides what is below that.
	require.NoError(t, TrustedXattrs.SetOpaque(filepath.Join(middle, "d")))
	b.Reset()
	require.NoError(t, WriteUpper(t.Context(), &b, Upper{Dir: upper, Lowers: []string{middle, base}, Xattrs: TrustedXattrs}))
	require.Equal(t, []string{"d/", "d/.wh.c", "d/new", "d/sub/", "d/sub/z", ".wh.w"}, names(t, &b))
}

// head keeps the beginning of what is written and then fails.
type head struct{ buf bytes.Buffer }

var errEnough = errors.New("enough")

func (h *head) Write(p []byte) (int, error) {
	if h.buf.Len() > 8<<10 {
		return 0, errEnough
	}
	return h.buf.Write(p)
}

func TestSizesThatOldArchivesCannotTell(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.Truncate(file, 9<<30))
	require.NoError(t, os.Lchown(file, 1<<22, 1<<22))
	var h head
	require.ErrorIs(t, WriteChanges(t.Context(), &h, Stack{}, Tree(dir), nil), errEnough)
	hdr, err := tar.NewReader(&h.buf).Next()
	require.NoError(t, err)
	require.EqualValues(t, 9<<30, hdr.Size)
	require.Equal(t, 1<<22, hdr.Uid)
	require.Equal(t, 1<<22, hdr.Gid)
}
