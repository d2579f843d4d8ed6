package beneath

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hostile returns a tree whose links try to leave it, and the path of a file outside.
func hostile(t testing.TB) (*Root, string, string) {
	t.Helper()
	dir, outside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("outside"), 0o644))
	for _, d := range []string{"etc", "a/b/c"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/f"), []byte("inside"), 0o644))
	for name, target := range map[string]string{
		"abs":      "/etc/f",
		"up":       "../../../../../../../etc/f",
		"host":     secret,
		"hostdir":  outside,
		"self":     "self",
		"ping":     "pong",
		"pong":     "ping",
		"dangling": "/made/later",
		"a/b/top":  "/",
		"a/b/back": "../../etc",
		"a/trick":  "b/c/../../../etc",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644))
	r, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	return r, dir, outside
}

func TestReadFileStaysWithinTheTree(t *testing.T) {
	r, _, _ := hostile(t)
	for _, p := range []string{"etc/f", "/etc/f", "abs", "up", "../../etc/f", "a/b/top/etc/f", "a/b/back/f", "a/trick/f"} {
		data, err := r.ReadFile(p, 100)
		require.NoError(t, err, p)
		require.Equal(t, "inside", string(data), p)
	}
	for p, want := range map[string]string{
		"host":       "open /host: no such file or directory",
		"self":       "open /self: too many levels of symbolic links",
		"ping":       "open /ping: too many levels of symbolic links",
		"fifo":       "read /fifo: not a regular file",
		"etc":        "read /etc: not a regular file",
		"etc/f/g":    "open /etc/f/g: not a directory",
		"../nowhere": "open /nowhere: no such file or directory",
	} {
		_, err := r.ReadFile(p, 100)
		require.EqualError(t, err, want)
	}
	_, err := r.ReadFile("etc/f", 3)
	require.EqualError(t, err, "read /etc/f: file too large")
}

func TestMkdirAllMakesWhatIsMissingWithinTheTree(t *testing.T) {
	r, dir, outside := hostile(t)
	for p, want := range map[string]string{
		"x/y/z":           "/x/y/z",
		"dangling/more":   "/made/later/more",
		"a/b/top/n":       "/n",
		"a/trick/n":       "/etc/n",
		"a/b/c/../../d":   "/a/d",
		"../../../escape": "/escape",
		"hostdir/evil":    outside + "/evil",
		"":                "/",
		"a//b/./c/":       "/a/b/c",
	} {
		var made []string
		d, got, err := r.MkdirAll(p, func(parent *os.File, name, p string) error {
			made = append(made, p)
			return WithMode(0o751)(parent, name, p)
		})
		require.NoError(t, err, p)
		d.Close()
		require.Equal(t, want, got, p)
		for _, m := range made {
			st, err := os.Stat(filepath.Join(dir, m))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o751)|os.ModeDir, st.Mode())
		}
	}
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing was made outside")

	for p, want := range map[string]string{
		"etc/f":     "mkdir /etc/f: not a directory",
		"etc/f/x/y": "mkdir /etc/f: not a directory",
		"fifo":      "mkdir /fifo: not a directory",
		"ping/x":    "mkdir /pong: too many levels of symbolic links",
	} {
		_, _, err := r.MkdirAll(p, WithMode(0o755))
		require.Error(t, err, p)
		if p == "ping/x" {
			require.ErrorIs(t, err, unix.ELOOP)
			continue
		}
		require.EqualError(t, err, want)
	}
}

func TestResolveStaysWithinTheTree(t *testing.T) {
	r, _, _ := hostile(t)
	for p, want := range map[string]string{
		"":             "/",
		"/../..":       "/",
		"abs":          "/etc/f",
		"up":           "/etc/f",
		"a/b/back":     "/etc",
		"a/trick/f":    "/etc/f",
		"a/b/top/up":   "/etc/f",
		"dangling/x":   "/made/later/x",
		"no/such/../f": "/no/f",
		"etc/f/below":  "/etc/f/below",
	} {
		got, err := r.Resolve(p)
		require.NoError(t, err, p)
		require.Equal(t, want, got, p)
	}
	for _, p := range []string{"self", "ping/x"} {
		_, err := r.Resolve(p)
		require.ErrorIs(t, err, unix.ELOOP, p)
	}
	host, err := r.Resolve("host")
	require.NoError(t, err)
	_, err = r.ReadFile(host, 100)
	require.ErrorIs(t, err, unix.ENOENT)
}

func TestParentDoesNotFollowTheLastElement(t *testing.T) {
	r, _, _ := hostile(t)
	for p, want := range map[string]string{"host": "host", "a/b/top/self": "self", "/": ".", "..": "."} {
		d, name, err := r.Parent(p)
		require.NoError(t, err, p)
		require.Equal(t, want, name)
		d.Close()
	}
	h, err := r.Handle("abs", true)
	require.NoError(t, err)
	defer h.Close()
	st, err := h.Stat()
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, st.Mode().Type())
}

func TestNoHandleIsLeft(t *testing.T) {
	r, _, _ := hostile(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := count()
	for _, p := range []string{"x/y", "dangling/z", "ping", "etc/f/x", "a/trick", "../.."} {
		if d, _, err := r.MkdirAll(p, WithMode(0o755)); err == nil {
			d.Close()
		}
	}
	require.Equal(t, before, count())
}

// FuzzMkdirAll looks for paths that leave the tree.
func FuzzMkdirAll(f *testing.F) {
	for _, p := range []string{"a/b", "../x", "a/b/top/../..", "hostdir/x", "a//./trick/..", "dangling"} {
		f.Add(p, "/etc")
	}
	f.Fuzz(func(t *testing.T, p, target string) {
		r, dir, outside := hostile(t)
		if target != "" && len(target) < unix.PathMax {
			_ = os.Symlink(target, filepath.Join(dir, "fuzzed"))
		}
		for _, p := range []string{p, "fuzzed/" + p} {
			d, got, err := r.MkdirAll(p, WithMode(0o755))
			if err != nil {
				continue
			}
			actual, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(d.Fd())))
			require.NoError(t, err)
			require.Equal(t, filepath.Join(dir, got), actual)
			d.Close()
		}
		entries, err := os.ReadDir(outside)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
}
