package runtimetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/require"
)

// Tree is a file tree for containers: busybox below, and what a test or a process writes above.
type Tree struct {
	Lower, Upper, work string
}

// NewTree returns a tree of its own. It needs the program busybox, statically linked, on the host.
func NewTree(t testing.TB) *Tree {
	t.Helper()
	dir := t.TempDir()
	tree := &Tree{Lower: filepath.Join(dir, "lower"), Upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "home/app"} {
		require.NoError(t, os.MkdirAll(filepath.Join(tree.Lower, d), 0o755))
	}
	require.NoError(t, os.Chmod(filepath.Join(tree.Lower, "tmp"), 0o777|os.ModeSticky))
	for _, d := range []string{tree.Upper, tree.work} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	tree.Write(t, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nother:x:1001:1002::/:/bin/sh\n")
	tree.Write(t, "etc/group", "root:x:0:\nwheel:x:10:app\nstaff:x:50:app,other\napp:x:1000:\n")
	busybox, err := exec.LookPath("busybox")
	require.NoError(t, err, "install busybox-static")
	data, err := os.ReadFile(busybox)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(tree.Lower, "bin/busybox"), data, 0o755))
	for _, applet := range applets {
		require.NoError(t, os.Symlink("busybox", filepath.Join(tree.Lower, "bin", applet)))
	}
	return tree
}

var applets = []string{
	"sh", "cat", "ls", "echo", "id", "true", "false", "sleep", "env", "mount", "touch", "stat", "pwd",
	"hostname", "grep", "mkdir", "mknod", "stty", "tty", "kill", "ps", "readlink", "dd", "df", "awk",
	"sort", "rm", "ln", "mv", "chmod", "head", "tail", "seq", "wc",
}

// Fork returns a tree over the same lower layer.
func (tr *Tree) Fork(t testing.TB) *Tree {
	t.Helper()
	dir := t.TempDir()
	out := &Tree{Lower: tr.Lower, Upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	require.NoError(t, os.Mkdir(out.Upper, 0o755))
	require.NoError(t, os.Mkdir(out.work, 0o755))
	return out
}

// Write writes a file of the lower layer.
func (tr *Tree) Write(t testing.TB, name, text string) {
	t.Helper()
	p := filepath.Join(tr.Lower, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
}

// Mount implements snapshot.Mountable.
func (tr *Tree) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{
		Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + tr.Lower, "upperdir=" + tr.Upper, "workdir=" + tr.work},
	}}, func() error { return nil }, nil
}

// Dir is a folder of the host as a tree.
type Dir string

// Mount implements snapshot.Mountable.
func (d Dir) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{{Type: "bind", Source: string(d), Options: []string{"rbind", "rw"}}},
		func() error { return nil }, nil
}
