//go:build linux

package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/continuity/sysx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func pack(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		require.NoError(t, w.WriteHeader(&h))
		if h.Size > 0 {
			_, err := io.WriteString(w, h.Name)
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return &b
}

// sandbox returns a root to unpack into and the folder around it, which has to stay as it is.
func sandbox(t testing.TB) (root, outside string) {
	outside, err := os.MkdirTemp("/dev/shm", "layer-") //nolint:usetesting // a disk would be most of what a fuzzer waits for
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(outside)) })
	root = filepath.Join(outside, "root")
	require.NoError(t, os.Mkdir(root, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
	return root, outside
}

func list(t testing.TB, root string) []string {
	var names []string
	require.NoError(t, filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, p); rel != "." {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func TestApplyConfinesHostileArchives(t *testing.T) {
	for name, tt := range map[string]struct {
		entries []tar.Header
		want    []string // what is in the root afterwards
		err     string
	}{
		"names that lead out": {
			entries: []tar.Header{{Name: "../../x"}, {Name: "/abs"}, {Name: "a/../../../y"}},
			want:    []string{"abs", "x", "y"},
		},
		"a link out of the root as a parent": {
			entries: []tar.Header{{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "../../.."}, {Name: "out/x"}},
			want:    []string{"out", "x"},
		},
		"an absolute link as a parent, its target missing": {
			entries: []tar.Header{{Name: "out", Typeflag: tar.TypeSymlink, Linkname: "/etc/deep"}, {Name: "out/x"}},
			want:    []string{"etc", "etc/deep", "etc/deep/x", "out"},
		},
		"a loop of links as a parent": {
			entries: []tar.Header{{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "b"}, {Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"}, {Name: "a/x"}},
			err:     `layer entry "a/x"`,
		},
		"a hard link to a file outside": {
			entries: []tar.Header{{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
			err:     `layer entry "h": hard link to "../secret"`,
		},
		"a hard link through a link to a file outside": {
			entries: []tar.Header{{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "h", Typeflag: tar.TypeLink, Linkname: "out/secret"}},
			err:     `layer entry "h": hard link to "out/secret"`,
		},
		"a file in place of a link does not write through it": {
			entries: []tar.Header{{Name: "f", Typeflag: tar.TypeSymlink, Linkname: "../secret"}, {Name: "f"}},
			want:    []string{"f"},
		},
		"removing through a link": {
			entries: []tar.Header{{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "out/.wh.secret"}},
			want:    []string{"out"},
		},
		"emptying through a link": {
			entries: []tar.Header{{Name: "out", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "out/.wh..wh..opq"}},
			want:    nil, // out leads to the root, which holds nothing of this layer under that name
		},
		"removing the parent": {
			entries: []tar.Header{{Name: ".wh..."}},
			err:     `layer entry ".wh..."`,
		},
		"removing the folder itself": {
			entries: []tar.Header{{Name: ".wh.."}},
			err:     `layer entry ".wh.."`,
		},
		"removing nothing": {
			entries: []tar.Header{{Name: ".wh."}},
			err:     `layer entry ".wh."`,
		},
		"a file as the root": {
			entries: []tar.Header{{Name: "."}},
			err:     `layer entry "."`,
		},
		"a file as a parent": {
			entries: []tar.Header{{Name: "f"}, {Name: "f/x"}},
			err:     `layer entry "f/x"`,
		},
		"overlayfs's own mark of a removal": {
			entries: []tar.Header{{Name: "w", Typeflag: tar.TypeChar}},
			err:     `layer entry "w": device number 0:0`,
		},
		"a type that is no file": {
			entries: []tar.Header{{Name: "w", Typeflag: 'V'}},
			err:     `layer entry "w": type 'V'`,
		},
		"bookkeeping of AUFS": {
			entries: []tar.Header{{Name: ".wh..wh.plnk", Typeflag: tar.TypeDir}, {Name: "f"}},
			want:    []string{"f"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, outside := sandbox(t)
			_, err := Apply(t.Context(), root, pack(t, tt.entries...))
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				var entry *EntryError
				require.ErrorAs(t, err, &entry)
			} else {
				require.NoError(t, err)
				require.Equal(t, tt.want, list(t, root))
			}
			names, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Len(t, names, 2, "nothing came to be beside the root")
			b, err := os.ReadFile(filepath.Join(outside, "secret"))
			require.NoError(t, err)
			require.Equal(t, "s", string(b))
		})
	}
}

func TestApplyDropsMarksOfOverlayfs(t *testing.T) {
	root, _ := sandbox(t)
	_, err := Apply(t.Context(), root, pack(t, tar.Header{
		Name: "d/", Typeflag: tar.TypeDir, Format: tar.FormatPAX,
		PAXRecords: map[string]string{
			xattrRecord + "trusted.overlay.opaque":   "y",
			xattrRecord + "trusted.overlay.redirect": "/etc",
			xattrRecord + "user.overlay.opaque":      "y",
			xattrRecord + "trusted.kept":             "v",
		},
	}))
	require.NoError(t, err)
	attrs, err := sysx.LListxattr(filepath.Join(root, "d"))
	require.NoError(t, err)
	require.Equal(t, []string{"trusted.kept"}, attrs)
}

func TestApplyKeepsWhatEntriesSay(t *testing.T) {
	root, _ := sandbox(t)
	when := time.Unix(1700000000, 123456000)
	_, err := Apply(t.Context(), root, pack(t,
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 5, Gid: 6, ModTime: when, Format: tar.FormatPAX},
		tar.Header{Name: "d/setuid", Mode: 0o4755, Uid: 1, Gid: 2, ModTime: when, Format: tar.FormatPAX},
		tar.Header{Name: "d/link", Typeflag: tar.TypeSymlink, Linkname: "setuid", Uid: 3, Gid: 4, ModTime: when, Format: tar.FormatPAX},
		tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "/d/setuid"},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
	))
	require.NoError(t, err)
	stat := func(name string) *syscall.Stat_t {
		st, err := os.Lstat(filepath.Join(root, name))
		require.NoError(t, err)
		return st.Sys().(*syscall.Stat_t)
	}
	for name, want := range map[string][3]uint32{
		"d":        {unix.S_IFDIR | 0o2750, 5, 6},
		"d/setuid": {unix.S_IFREG | 0o4755, 1, 2},
		"hard":     {unix.S_IFREG | 0o4755, 1, 2},
		"d/link":   {unix.S_IFLNK | 0o777, 3, 4},
		"fifo":     {unix.S_IFIFO | 0o600, 0, 0},
		"null":     {unix.S_IFCHR | 0o666, 0, 0},
	} {
		st := stat(name)
		require.Equal(t, want, [3]uint32{st.Mode, st.Uid, st.Gid}, name)
	}
	for _, name := range []string{"d", "d/setuid", "d/link"} {
		require.EqualValues(t, 123456000, stat(name).Mtim.Nsec, name)
	}
	require.Equal(t, stat("hard").Ino, stat("d/setuid").Ino)
	require.Equal(t, unix.Mkdev(1, 3), stat("null").Rdev)
}

func TestApplyHidesWhatAnOpaqueFolderHad(t *testing.T) {
	root, _ := sandbox(t)
	_, err := Apply(t.Context(), root, pack(t, tar.Header{Name: "d/old"}, tar.Header{Name: "d/sub/old"}, tar.Header{Name: "keep/x"}))
	require.NoError(t, err)
	_, err = Apply(t.Context(), root, pack(t, tar.Header{Name: "d/new"}, tar.Header{Name: "d/sub/new"}, tar.Header{Name: "d/.wh..wh..opq"}, tar.Header{Name: "missing/.wh..wh..opq"}))
	require.NoError(t, err)
	require.Equal(t, []string{"d", "d/new", "d/sub", "d/sub/new", "keep", "keep/x"}, list(t, root))
}

func TestApplyReadsNoFurtherThanItHasTo(t *testing.T) {
	root, _ := sandbox(t)
	applied, err := Apply(t.Context(), root, pack(t, tar.Header{Name: "abc"}))
	require.NoError(t, err)
	require.EqualValues(t, 3, applied.Size)
	_, err = Apply(t.Context(), root, strings.NewReader(strings.Repeat("no archive ", 100)))
	require.ErrorContains(t, err, "read layer archive")
	_, err = Apply(t.Context(), filepath.Join(root, "abc"), pack(t))
	require.ErrorIs(t, err, unix.ENOTDIR)
}

func TestApplyReportsAFullDisk(t *testing.T) {
	root, _ := sandbox(t)
	require.NoError(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=64k"), "tests mount file systems and need root")
	defer func() { require.NoError(t, unix.Unmount(root, 0)) }()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "big", Size: 1 << 20, Mode: 0o644}))
	_, err := w.Write(make([]byte, 1<<20))
	require.NoError(t, err)
	_, err = Apply(t.Context(), root, &b)
	require.ErrorIs(t, err, unix.ENOSPC)
	var entry *EntryError
	require.ErrorAs(t, err, &entry)
	require.Equal(t, "big", entry.Name)
}

func FuzzApply(f *testing.F) {
	f.Add([]byte{})
	f.Add(pack(f, tar.Header{Name: "../x"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, tar.Header{Name: "l/y"}).Bytes())
	f.Add(pack(f, tar.Header{Name: "d/.wh.x"}, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../secret"}).Bytes())
	f.Add(pack(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "d/.wh..wh..opq"}).Bytes())
	f.Fuzz(func(t *testing.T, archive []byte) {
		root, outside := sandbox(t)
		_, _ = Apply(t.Context(), root, bytes.NewReader(archive))
		// On its own, and on what was made of it before.
		upper := filepath.Join(outside, "upper")
		require.NoError(t, os.Mkdir(upper, 0o755))
		d, err := ApplyDetached(t.Context(), upper, bytes.NewReader(archive), TrustedXattrs)
		if err == nil {
			_ = d.Attach(root)
		}
		require.NoError(t, os.RemoveAll(upper))
		names, err := os.ReadDir(outside)
		require.NoError(t, err)
		require.Len(t, names, 2)
		b, err := os.ReadFile(filepath.Join(outside, "secret"))
		require.NoError(t, err)
		require.Equal(t, "s", string(b))
		st, err := os.Stat(filepath.Join(outside, "secret"))
		require.NoError(t, err)
		require.EqualValues(t, 1, st.Sys().(*syscall.Stat_t).Nlink)
	})
}

func TestApplyLeavesHolesAndNeedsRoom(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/vast", []byte("a"), 0o600))
	for _, format := range []string{"gnu", "pax"} {
		archive := func(size int64) *bytes.Buffer {
			require.NoError(t, os.Truncate(dir+"/vast", size))
			data, err := exec.CommandContext(t.Context(), "tar", "--sparse", "--format="+format, "--directory="+dir, "--create", "vast").Output()
			require.NoError(t, err)
			return bytes.NewBuffer(data)
		}
		root, _ := sandbox(t)
		applied, err := Apply(t.Context(), root, archive(100<<20))
		require.NoError(t, err)
		require.EqualValues(t, 100<<20, applied.Size)
		var st unix.Stat_t
		require.NoError(t, unix.Stat(root+"/vast", &st))
		require.EqualValues(t, 100<<20, st.Size)
		require.Less(t, st.Blocks*512, int64(1<<20))
		_, err = Apply(t.Context(), root, archive(1<<42))
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
}
