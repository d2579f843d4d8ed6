//go:build linux

package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/continuity/sysx"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// capability is a file capability as the kernel stores it: cap_net_raw, permitted and effective
// (linux/capability.h, vfs_cap_data, revision 2).
var capability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// What a layer says of a file is what unpacking it gives, through the overlay that it came from.
func TestALayerOfAnOverlayComesBack(t *testing.T) {
	outside := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", outside, "tmpfs", 0, "size=16m"), "tests mount file systems and need root")
	defer func() { require.NoError(t, unix.Unmount(outside, unix.MNT_DETACH)) }()
	at := func(name string) string { return filepath.Join(outside, name) }
	for _, dir := range []string{"lower", "upper", "work", "merged", "copy"} {
		require.NoError(t, os.Mkdir(at(dir), 0o755))
	}
	put(t, at("lower"), "gone", "d/old", "d/sub/old", "emptied/x", "kept/x", "replaced/x", "a/b/c", "moved/x")
	require.NoError(t, unix.Mount("overlay", at("merged"), "overlay", 0, "lowerdir="+at("lower")+",upperdir="+at("upper")+",workdir="+at("work")))
	in := func(name string) string { return filepath.Join(at("merged"), name) }
	require.NoError(t, os.Remove(in("gone")))
	require.NoError(t, os.RemoveAll(in("d")))
	put(t, at("merged"), "d/new", "d/sub/new", "a/b/new", "z/first")
	require.NoError(t, os.Remove(in("emptied/x")))
	require.NoError(t, os.RemoveAll(in("replaced")))
	require.NoError(t, os.WriteFile(in("replaced"), []byte("a file now"), 0o600))
	require.NoError(t, os.Link(in("z/first"), in("a/second")))
	require.NoError(t, unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.NoError(t, unix.Mkfifo(in("fifo"), 0o600))
	require.NoError(t, os.Symlink("/nowhere", in("link")))
	require.NoError(t, sysx.LSetxattr(in("z/first"), "security.capability", capability, 0))
	require.NoError(t, sysx.LSetxattr(in("d"), "user.note", []byte("\x00binary\n"), 0))
	require.NoError(t, os.Chmod(in("kept"), 0o1777|os.ModeSticky))

	var fromUpper, compared, again bytes.Buffer
	require.NoError(t, WriteUpper(t.Context(), &fromUpper, Upper{Dir: at("upper"), Lowers: []string{at("lower")}, Xattrs: TrustedXattrs}))
	require.NoError(t, WriteUpper(t.Context(), &again, Upper{Dir: at("upper"), Lowers: []string{at("lower")}, Xattrs: TrustedXattrs}))
	require.True(t, bytes.Equal(fromUpper.Bytes(), again.Bytes()))
	require.NoError(t, WriteChanges(t.Context(), &compared, Tree(at("lower")), Tree(at("merged")), nil))
	require.Equal(t, names(t, bytes.NewBuffer(compared.Bytes())), names(t, bytes.NewBuffer(fromUpper.Bytes())))
	all := read(t, bytes.NewBuffer(fromUpper.Bytes()))
	for name := range all {
		for record := range all[name].PAXRecords {
			require.NotContains(t, record, "overlay", name)
		}
	}

	// Onto a copy of what was below, it gives what was seen above.
	var base bytes.Buffer
	require.NoError(t, WriteChanges(t.Context(), &base, Stack{}, Tree(at("lower")), nil))
	_, err := Apply(t.Context(), at("copy"), &base)
	require.NoError(t, err)
	_, err = Apply(t.Context(), at("copy"), &fromUpper)
	require.NoError(t, err)
	require.Equal(t, list(t, at("merged")), list(t, at("copy")))
	got, err := sysx.LGetxattr(at("copy/z/first"), "security.capability")
	require.NoError(t, err)
	require.Equal(t, capability, got)
	var difference bytes.Buffer
	require.NoError(t, WriteChanges(t.Context(), &difference, Tree(at("copy")), Tree(at("merged")), nil))
	// Fractions of seconds are cut in layers, so times differ; nothing is removed.
	for _, name := range names(t, &difference) {
		require.NotContains(t, name, whiteoutPrefix)
	}
	require.NoError(t, unix.Unmount(at("merged"), 0))
}
