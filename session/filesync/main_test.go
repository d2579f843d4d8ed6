//go:build linux

package filesync_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tonistiigi/fsutil"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/session/filesync"
	"github.com/openbuildkit/buildkit/session/sessiontest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tmpfs returns an empty directory on a file system of its own in memory.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""), "tests mount a tmpfs and need root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// tree describes what is below a directory: one line an entry.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	links := map[uint64]string{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		sys := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %s %d:%d %d", rel, info.Mode(), sys.Uid, sys.Gid, info.ModTime().UnixNano())
		if info.Mode()&fs.ModeSymlink != 0 {
			target, _ := os.Readlink(p)
			fmt.Fprintf(&b, " -> %s", target)
		}
		if info.Mode()&fs.ModeDevice != 0 {
			fmt.Fprintf(&b, " dev %d", sys.Rdev)
		}
		if info.Mode().IsRegular() {
			if first, ok := links[sys.Ino]; ok {
				fmt.Fprintf(&b, " link %s", first)
			}
			links[sys.Ino] = rel
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(data) > 100 {
				data = fmt.Appendf(nil, "%d bytes of %x", len(data), data[:8])
			}
			fmt.Fprintf(&b, " %q", data)
		}
		buf := make([]byte, 100)
		if n, err := unix.Lgetxattr(p, "user.test", buf); err == nil {
			fmt.Fprintf(&b, " xattr %q", buf[:n])
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// plant makes a tree with one of everything.
func plant(t testing.TB, dir string) {
	t.Helper()
	write := func(name, text string, mode os.FileMode) {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
		require.NoError(t, os.Chmod(p, mode))
	}
	write("a", "first", 0o644)
	write("a.b/deep/er/file", "deep", 0o600)
	write("a-b", "dash", 0o755)
	write("empty", "", 0o444)
	write("suid", "s", 0o755|os.ModeSetuid)
	write("large", strings.Repeat("0123456789abcdef", 100_000), 0o644)
	write("ünï", "cødé", 0o640)
	require.NoError(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "z-link")))
	require.NoError(t, os.Symlink("/does/not/exist", filepath.Join(dir, "sym")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o610))
	require.NoError(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sticky"), 0o777))
	require.NoError(t, os.Chmod(filepath.Join(dir, "sticky"), 0o777|os.ModeSticky))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "closed"), 0o755))
	write("closed/in", "side", 0o400)
	require.NoError(t, os.Chmod(filepath.Join(dir, "closed"), 0o500))
	require.NoError(t, unix.Setxattr(filepath.Join(dir, "a-b"), "user.test", []byte("x"), 0))
	require.NoError(t, unix.Setxattr(filepath.Join(dir, "sticky"), "user.test", []byte("d"), 0))
	old := unix.NsecToTimespec(1_580_000_000_123_456_789)
	for _, name := range []string{"a", "sym", "sticky", "pipe", "a.b/deep"} {
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, name), []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// many makes n files of 2 KiB.
func many(t testing.TB, dir string, n int) {
	t.Helper()
	data := make([]byte, 2048)
	for i := range n {
		d := filepath.Join(dir, fmt.Sprintf("d%02d/e%02d", i/1000, i/100%10))
		if i%100 == 0 {
			require.NoError(t, os.MkdirAll(d, 0o755))
		}
		copy(data, fmt.Sprintf("file %d", i))
		require.NoError(t, os.WriteFile(filepath.Join(d, fmt.Sprintf("f%02d", i%100)), data, 0o644))
	}
}

func localFS(t testing.TB, dir string) *filesync.LocalFS {
	t.Helper()
	l, err := filesync.NewFS(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// offering returns a session of a client that offers dir as src.
func offering(t testing.TB, dir string) *session.Caller {
	t.Helper()
	_, c := sessiontest.Connect(t, filesync.NewProvider(map[string]fsutil.FS{"src": localFS(t, dir)}))
	return c
}

func receive(t testing.TB, c *session.Caller, opt filesync.ReceiveOpt) {
	t.Helper()
	if opt.Name == "" {
		opt.Name = "src"
	}
	require.NoError(t, filesync.Receive(context.Background(), c, opt))
}

// unreadable is a tree with a file that can't be opened.
type unreadable struct{ fsutil.FS }

func (u unreadable) Open(p string) (io.ReadCloser, error) {
	if filepath.Base(p) == "f01" {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrPermission}
	}
	return u.FS.Open(p)
}

// smallTmpfs returns a tmpfs with little space.
func smallTmpfs(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}
