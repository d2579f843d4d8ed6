package fileop_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/fileop"
)

func unpacking(c *pb.FileActionCopy) { c.AttemptUnpackDockerCompatibility = true }

// add unpacks an archive onto dst at /to.
func add(t *testing.T, data []byte, dst string) error {
	t.Helper()
	src := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(src, "a.tar"), data, 0o644))
	return apply(t, copyOf("a.tar", "/to/", unpacking), src, dst)
}

func TestArchivesStayWhereTheyAreUnpacked(t *testing.T) {
	outside := lay(t, "secret=s", "dir/")
	file := func(name string) *tar.Header {
		return &tar.Header{Name: name, Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}
	}
	link := func(kind byte, name, to string) *tar.Header {
		return &tar.Header{Name: name, Linkname: to, Mode: 0o777, Typeflag: kind}
	}
	for name, c := range map[string]struct {
		entries []*tar.Header
		want    []string
		err     string
	}{
		"names that go up":    {entries: []*tar.Header{file("../../../a"), file("x/../../../b")}, want: []string{"to/a=x", "to/b=x"}},
		"absolute names":      {entries: []*tar.Header{file(outside + "/secret")}, want: []string{"to" + outside + "/secret=x"}},
		"a link to a folder":  {entries: []*tar.Header{link(tar.TypeSymlink, "l", outside), file("l/a")}, want: []string{"to" + outside + "/a=x", "to/l->" + outside}},
		"a link that goes up": {entries: []*tar.Header{link(tar.TypeSymlink, "l", "../../../../.."), file("l/a")}, want: []string{"to/a=x", "to/l->../../../../.."}},
		"links to links": {
			entries: []*tar.Header{link(tar.TypeSymlink, "m", "l"), link(tar.TypeSymlink, "l", outside+"/dir"), file("m/a")},
			want:    []string{"to" + outside + "/dir/a=x", "to/l->" + outside + "/dir", "to/m->l"},
		},
		"a file over a link":        {entries: []*tar.Header{link(tar.TypeSymlink, "l", outside+"/secret"), file("l")}, want: []string{"to/l=x"}},
		"a folder over a link":      {entries: []*tar.Header{link(tar.TypeSymlink, "l", outside), {Name: "l", Mode: 0o700, Typeflag: tar.TypeDir}, file("l/a")}, want: []string{"to/l/a=x"}},
		"another name of a file":    {entries: []*tar.Header{link(tar.TypeLink, "l", "../../../../../.."+outside+"/secret")}, err: "no such file or directory"},
		"another name by a link":    {entries: []*tar.Header{link(tar.TypeSymlink, "d", outside), link(tar.TypeLink, "l", "d/secret")}, err: "no such file or directory"},
		"a link to itself":          {entries: []*tar.Header{link(tar.TypeSymlink, "l", "l"), file("l/a")}, err: "too many levels of symbolic links"},
		"the folder itself":         {entries: []*tar.Header{{Name: "./", Mode: 0, Typeflag: tar.TypeDir}, file("a")}, want: []string{"to/a=x"}},
		"a file in place of it":     {entries: []*tar.Header{file("."), file("a")}, want: []string{"to/a=x"}},
		"names of removals":         {entries: []*tar.Header{file(".wh..wh..opq"), file(".wh.kept")}, want: []string{"kept=k", "to/.wh..wh..opq=x", "to/.wh.kept=x"}},
		"a name that is too long":   {entries: []*tar.Header{file(strings.Repeat("n", 300))}, err: "file name too long"},
		"folders that are too deep": {entries: []*tar.Header{file(strings.Repeat("d/", 3000) + "f")}, err: "file name too long"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := lay(t, "kept=k")
			err := add(t, archiveOf(t, c.entries...), dst)
			require.Equal(t, []string{"dir/", "secret=s"}, show(t, outside))
			if c.err != "" {
				require.ErrorContains(t, err, "unpack /a.tar: ")
				require.ErrorContains(t, err, c.err)
				require.NotContains(t, err.Error(), dst)
				return
			}
			require.NoError(t, err)
			require.Subset(t, show(t, dst), c.want)
			require.Len(t, show(t, filepath.Join(dst, "to")), len(c.want)-strings.Count(strings.Join(c.want, "\n"), "kept=k"))
			st, err := os.Stat(filepath.Join(dst, "to"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o755)|os.ModeDir, st.Mode(), "the folder is not what the archive says of itself")
		})
	}
}

// sparse makes an archive of a file that is one hole, as tar does it.
func sparse(t *testing.T, format string, size int64) []byte {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "vast"), []byte("begin"), 0o644))
	require.NoError(t, os.Truncate(filepath.Join(dir, "vast"), size))
	data, err := exec.Command("tar", "--sparse", "--format="+format, "--directory="+dir, "--create", "vast").Output()
	require.NoError(t, err)
	return data
}

func TestHolesOfArchivesTakeNoRoom(t *testing.T) {
	for _, format := range []string{"gnu", "posix"} {
		dst := t.TempDir()
		require.NoError(t, add(t, sparse(t, format, 300<<20), dst))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(dst, "to/vast"), &st))
		require.Equal(t, int64(300<<20), st.Size)
		require.Less(t, st.Blocks*512, int64(2<<20))
		f, err := os.Open(filepath.Join(dst, "to/vast"))
		require.NoError(t, err)
		head := make([]byte, 8)
		_, err = io.ReadFull(f, head)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.Equal(t, "begin\x00\x00\x00", string(head))

		require.EqualError(t, add(t, sparse(t, format, 1<<42), dst),
			"unpack /a.tar: vast: a sparse file of 4398046511104 bytes: no space left on device")
	}
}

// A header of a few bytes may ask for a window of many gigabytes.
func TestDecompressionTakesBoundedMemory(t *testing.T) {
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 23 << 3} // a window of 8 GiB
	for range 1 << 18 {
		frame = append(frame, 0x02, 0x00, 0x10, 0x00) // 128 KiB of zeros
	}
	dst := t.TempDir()
	require.NoError(t, add(t, frame, dst))
	require.Len(t, show(t, dst), 1, "what cannot be read is no archive")

	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed)
	require.NoError(t, err)
	_, err = w.Write(archiveOf(t, &tar.Header{Name: "f", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	err = add(t, append(packed.Bytes(), frame...), t.TempDir())
	require.ErrorContains(t, err, "unpack /a.tar: window size exceeded")
}

// What follows the end of an archive is read, as it may be damaged, but not for ever.
func TestUnpackingEndsWithItsContext(t *testing.T) {
	src := t.TempDir()
	f, err := os.Create(filepath.Join(src, "a.tar"))
	require.NoError(t, err)
	_, err = f.Write(archiveOf(t, &tar.Header{Name: "f", Mode: 0o644, Size: 1, Typeflag: tar.TypeReg}))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<42))
	require.NoError(t, f.Close())
	ctx, cancel := context.WithCancel(t.Context())
	dst := t.TempDir()
	done := make(chan error, 1)
	go func() {
		done <- fileop.Apply(ctx, copyOf("a.tar", "/to/", unpacking), fileop.Trees{Dest: dst, Source: src})
	}()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dst, "to/f"))
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestManyEntriesAreUnpacked(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 5_000 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f", i%500), Mode: 0o644, Typeflag: tar.TypeReg}))
	}
	require.NoError(t, w.Close())
	dst := t.TempDir()
	require.NoError(t, add(t, gz(buf.Bytes()), dst))
	require.Len(t, show(t, dst), 500)
}

// deep makes directories below one another, deeper than a path can be.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	for range levels {
		require.NoError(t, unix.Mkdirat(fd, "d", 0o755))
		next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))
		fd = next
	}
	require.NoError(t, unix.Close(fd))
}

func TestTreesDeeperThanPathsAreNotCopied(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	deep(t, src, 200)
	require.NoError(t, apply(t, copyOf("/", "/to"), src, dst))
	src = t.TempDir()
	deep(t, src, 2100)
	require.ErrorIs(t, apply(t, copyOf("/", "/to"), src, t.TempDir()), unix.ENAMETOOLONG)
	require.ErrorIs(t, apply(t, copyOf("/d", "/to"), src, t.TempDir()), unix.ENAMETOOLONG)
}

func TestOwnersAreLookedUpInFilesOfBoundedSize(t *testing.T) {
	byName := func(name string) *pb.UserOpt {
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: name}}}
	}
	huge := strings.Repeat("nobody:x:1:1:::\n", 1<<20)
	for name, c := range map[string]struct {
		tree  []string
		owner *pb.ChownOpt
		want  string
	}{
		"users":        {[]string{"etc/passwd=" + huge}, &pb.ChownOpt{User: byName("app")}, "look up user app: read /etc/passwd: file too large"},
		"groups":       {[]string{"etc/group=" + huge}, &pb.ChownOpt{Group: byName("app")}, "look up group app: read /etc/group: file too large"},
		"a link out":   {[]string{"etc/", "etc/passwd->/proc/self/environ"}, &pb.ChownOpt{User: byName("app")}, ""},
		"a device":     {[]string{"etc/", "etc/passwd->/dev/zero"}, &pb.ChownOpt{User: byName("app")}, ""},
		"a folder":     {[]string{"etc/passwd/"}, &pb.ChownOpt{User: byName("app")}, "look up user app: read /etc/passwd: not a regular file"},
		"a long line":  {[]string{"etc/passwd=" + strings.Repeat("x", 1<<20)}, &pb.ChownOpt{User: byName("app")}, ""},
		"a long group": {[]string{"etc/group=app:x:7:" + strings.Repeat("x,", 1<<20)}, &pb.ChownOpt{Group: byName("app")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := copyOf("f", "/f")
			a.GetCopy().Owner = c.owner
			err := apply(t, a, lay(t, "f=x"), lay(t, c.tree...))
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
		})
	}
	dst := lay(t, "etc/")
	require.NoError(t, unix.Mkfifo(filepath.Join(dst, "etc/passwd"), 0o644))
	a := copyOf("f", "/f")
	a.GetCopy().Owner = &pb.ChownOpt{User: byName("app")}
	require.EqualError(t, apply(t, a, lay(t, "f=x"), dst), "look up user app: read /etc/passwd: not a regular file")
}
