package runtimetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/snapshot"
	"github.com/openbuildkit/buildkit/worker"
)

// with adds a mount.
func with(source snapshot.Mountable, dest, selector string, readonly bool) func(*ctr, *proc) {
	return func(c *ctr, _ *proc) {
		c.Mounts = append(c.Mounts, worker.Mount{Source: source, Dest: dest, Selector: selector, Readonly: readonly})
	}
}

func writeFile(t *testing.T, text string, elem ...string) {
	t.Helper()
	p := filepath.Join(elem...)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
}

func testMounts(t *testing.T, b *box) {
	dir := t.TempDir()
	writeFile(t, "a\n", dir, "a.txt")
	writeFile(t, "s\n", dir, "sub/s.txt")
	overlay := b.tree.Fork(t)
	out, _, err := b.run(t, "cat /ro/a.txt /file /part/s.txt /over/etc/group | head -4; touch /ro/x /part/x; echo $?; echo w > /rw/w; "+
		"df -k /t | awk 'NR==2{print $2}'; stat -c %a /t; cat /nested/in/a.txt; touch /over/x; echo $?",
		with(Dir(dir), "/ro", "", true),
		with(Dir(dir), "/rw", "/", false),
		with(Dir(dir), "/file", "a.txt", true),
		with(Dir(dir), "/part", "sub", true),
		with(worker.TmpfsMount(1<<20), "/t", "", false),
		with(Dir(dir), "/nested/in", "", true),
		with(worker.TmpfsMount(0), "/nested", "", false),
		with(overlay, "/over", "", true),
	)
	require.NoError(t, err)
	require.Equal(t, "a\na\ns\nroot:x:0:\n1\n1024\n1777\na\n1\n", out)
	data, err := os.ReadFile(filepath.Join(dir, "w"))
	require.NoError(t, err)
	require.Equal(t, "w\n", string(data))

	require.Equal(t, "later", b.must(t, "cat /m", with(fileOf(t, "earlier"), "/m", "f", true), with(fileOf(t, "later"), "/m", "f", true)))
}

func fileOf(t *testing.T, text string) Dir {
	dir := t.TempDir()
	writeFile(t, text, dir, "f")
	return Dir(dir)
}

func testSelector(t *testing.T, b *box) {
	dir := t.TempDir()
	writeFile(t, "inside\n", dir, "etc/hostname")
	require.NoError(t, os.Symlink("/etc/hostname", filepath.Join(dir, "abs")))
	require.NoError(t, os.Symlink("../../../../../../../../etc/hostname", filepath.Join(dir, "up")))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, selector := range []string{"abs", "up", "../../etc/hostname", "/etc/hostname"} {
		require.Equal(t, "inside", b.must(t, "cat /m", with(Dir(dir), "/m", selector, true)), selector)
	}
	_, _, err := b.run(t, "true", with(Dir(dir), "/m", "no/such", true))
	require.EqualError(t, err, "mount /m: open /no/such: no such file or directory")
	_, _, err = b.run(t, "true", with(Dir(dir), "/m", "loop", true))
	require.ErrorContains(t, err, "too many levels of symbolic links")
}

func testSecret(t *testing.T, b *box) {
	plain := worker.SecretMount(b.SecretDir, worker.Secret{Data: []byte("hush\n"), UID: 7, GID: 8, Mode: 0o440})
	script := worker.SecretMount(b.SecretDir, worker.Secret{Data: []byte("#!/bin/sh\necho ran\n"), Mode: 0o755})
	out, _, err := b.run(t, "cat /run/secrets/s; stat -c '%a %u:%g' /run/secrets/s; /script; echo x > /run/secrets/s; echo $?; "+
		"grep ' /run/secrets/s ' /proc/mounts | awk '{print $3}'",
		with(plain, "/run/secrets/s", "", true), with(script, "/script", "", true))
	require.NoError(t, err)
	require.Equal(t, "hush\n440 7:8\nran\n1\ntmpfs\n", out)
	requireGone(t, b, "run/secrets/s")
}

func testReadonlyRoot(t *testing.T, b *box) {
	out, _, err := b.run(t, "touch /x; echo $?; touch /tmp/x; echo $?; cat /m", with(fileOf(t, "mounted\n"), "/m", "f", true),
		func(c *ctr, _ *proc) { c.ReadonlyRoot = true })
	require.NoError(t, err)
	require.Equal(t, "1\n1\nmounted\n", out)
}

func requireGone(t *testing.T, b *box, name string) {
	t.Helper()
	_, err := os.Lstat(filepath.Join(b.tree.Upper, name))
	require.ErrorIs(t, err, os.ErrNotExist, name)
}

func testStubs(t *testing.T, b *box) {
	old := time.Unix(1234567890, 123456789)
	for _, d := range []string{"", "etc", "home"} {
		require.NoError(t, os.Chtimes(filepath.Join(b.tree.Lower, d), old, old))
	}
	require.NoError(t, os.Chtimes(b.tree.Upper, old, old))
	mounts := func(c *ctr, p *proc) {
		with(fileOf(t, "f"), "/file", "f", true)(c, p)
		with(worker.TmpfsMount(0), "/home/d", "", false)(c, p)
		with(worker.TmpfsMount(0), "/deep/er/o", "", false)(c, p)
		with(worker.TmpfsMount(0), "/dev/in-dev", "", false)(c, p)
	}
	b.must(t, "test -d /deep/er/o && test -f /file && test -d /dev/in-dev", mounts)
	for _, name := range []string{"etc/hosts", "etc/resolv.conf", "file", "home/d", "deep/er/o", "dev/in-dev"} {
		requireGone(t, b, name)
	}
	for _, d := range []string{"etc", "home", ""} {
		st, err := os.Stat(filepath.Join(b.tree.Upper, d))
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		require.True(t, st.ModTime().Equal(old), "%q %v", d, st.ModTime())
	}
	require.DirExists(t, filepath.Join(b.tree.Upper, "deep/er"), "parents stay unless the request says otherwise")

	b.tree = b.tree.Fork(t)
	b.must(t, "true", mounts, func(c *ctr, _ *proc) { c.RemoveStubsRecursive = true })
	requireGone(t, b, "deep")

	// What is there already stays.
	b.tree = b.tree.Fork(t)
	b.tree.Write(t, "file", "")
	b.tree.Write(t, "etc/hosts", "mine\n")
	b.must(t, "true", mounts)
	require.Equal(t, "mine", b.must(t, "cat /file; mkdir /x; ln /etc/group /x/g; rm /x/g; cat /real", func(c *ctr, p *proc) {
		p.Args = []string{"cat", "/real"}
		b.tree.Write(t, "real", "mine\n")
	}))
	requireGone(t, b, "file")
}

func testStubLinks(t *testing.T, b *box) {
	outside := t.TempDir()
	require.NoError(t, os.Symlink(outside, filepath.Join(b.tree.Lower, "out")))
	require.NoError(t, os.Symlink("/gone/file", filepath.Join(b.tree.Lower, "dangling")))
	b.must(t, "test -d /out/d && test -s /dangling && test -s /gone/file",
		with(worker.TmpfsMount(0), "/out/d", "", false), with(fileOf(t, "f"), "/dangling", "f", true),
		func(c *ctr, _ *proc) { c.RemoveStubsRecursive = true })
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Empty(t, entries)
	requireGone(t, b, "gone")
	requireGone(t, b, outside)
}

func testStubKeepsChanges(t *testing.T, b *box) {
	old := time.Unix(1234567890, 0)
	require.NoError(t, os.Chtimes(filepath.Join(b.tree.Lower, "home"), old, old))
	b.must(t, "touch /home/mine", with(worker.TmpfsMount(0), "/home/d", "", false))
	require.FileExists(t, filepath.Join(b.tree.Upper, "home/mine"))
	requireGone(t, b, "home/d")
	st, err := os.Stat(filepath.Join(b.tree.Upper, "home"))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), st.ModTime(), time.Minute)
}
