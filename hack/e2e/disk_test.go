package e2e_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// smallDisk mounts a file system of so many bytes that is on a file.
func smallDisk(t *testing.T, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Truncate(file, size))
	command(t, "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", file)
	return mounted(t, func(dir string) error {
		command(t, "mount", "-o", "loop", file, dir)
		return nil
	})
}

func TestAFullDiskFailsTheBuildAndNothingElse(t *testing.T) {
	t.Parallel()
	// A page cache that is not written yet has to fit too; what is too much is far beyond the size.
	d, registry := startWithRegistry(t, harness.DaemonOptions{Dir: smallDisk(t, 64<<20)})
	const tooMuch = 200
	large := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(large, make([]byte, tooMuch<<20), 0o600))
	registry.Push(t, "library/large:latest", image(t, regular("large", string(make([]byte, tooMuch<<20)))))
	kept := dockerfile(t, "FROM busybox", "RUN echo kept > /kept")
	d.Build(t, kept)

	for name, build := range map[string]func(t *testing.T) harness.Result{
		"by a step": func(t *testing.T) harness.Result {
			t.Helper()
			return d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN dd if=/dev/zero of=/large bs=1M count=200"))...)
		},
		"by a context": func(t *testing.T) harness.Result {
			t.Helper()
			return solve(t, d, marshal(t, llb.Local("context")), "--local=context="+filepath.Dir(large)).wait(t)
		},
		"by an image": func(t *testing.T) harness.Result {
			t.Helper()
			return d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM large", "RUN true"))...)
		},
		"by a file operation": func(t *testing.T) harness.Result {
			t.Helper()
			state := llb.Image("docker.io/library/busybox").Run(llb.Shell("head -c 25000000 /dev/urandom > /f")).Root()
			for range 3 {
				state = llb.Scratch().File(llb.Copy(state, "/", "/", llb.CopyDirContents()))
				state = state.File(llb.Mkfile("/other", 0o644, []byte("x")))
			}
			return solve(t, d, marshal(t, state)).wait(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			result := build(t)
			require.Equal(t, 1, result.Code, result.Stderr)
			require.Contains(t, result.Stderr, "o space left on device")
			d.RequireIdle(t)
			d.MustBuildctl(t, "debug", "info")
			d.MustBuildctl(t, "du")
			d.MustBuildctl(t, "prune", "--all")
			d.Build(t, kept)
			requireAlive(t, d)
		})
	}
	d.MustBuildctl(t, "prune", "--all")
}

// fill takes all the space that a folder's file system has left.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filling")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	for size := 1 << 20; size > 0; {
		n, err := file.Write(make([]byte, size))
		if err != nil {
			require.ErrorIs(t, err, unix.ENOSPC)
			if n == 0 {
				size /= 2
			}
		}
	}
	require.NoError(t, file.Sync())
	return func() { require.NoError(t, os.Remove(path)) }
}

func TestADaemonStartsOnAFullDiskSoThatItCanBePruned(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Dir: smallDisk(t, 64<<20)})
	context := dockerfile(t, "FROM busybox", "RUN head -c 20000000 /dev/urandom > /large")
	d.Build(t, context)
	smaller := dockerfile(t, "FROM busybox", "RUN head -c 10000000 /dev/urandom > /large")

	for name, stop := range map[string]func(){
		"stopped": func() { d.Stop(t) },
		"killed":  func() { d.Kill(t) },
		"without the space that is kept for it": func() {
			d.Stop(t)
			require.NoError(t, os.Remove(filepath.Join(d.Root, "openbuildkit/reserve")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d.Build(t, context)
			stop()
			free := fill(t, filepath.Dir(d.Root))
			d.Start(t)
			require.Contains(t, d.Logs(), "no space left on device")
			require.Contains(t, d.MustBuildctl(t, "du", "--verbose").Stdout, "head -c 20000000")
			result := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN echo > /x"))...)
			require.Equal(t, 1, result.Code)
			require.Contains(t, result.Stderr, "the disk of the daemon at "+d.Root)
			d.Restart(t)
			d.MustBuildctl(t, "prune", "--all")
			require.NotContains(t, d.MustBuildctl(t, "du", "--verbose").Stdout, "head -c 20000000")
			d.Build(t, smaller)
			free()
		})
	}
}

func TestRecordsCanBeDeletedOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := start(t, harness.DaemonOptions{Dir: smallDisk(t, 64<<20)})
	ref, result := recorded(t, d, dockerfile(t, "FROM busybox", "RUN yes | head -c 20000000"))
	require.Zero(t, result.Code, result.Stderr)
	// The record is there when it is asked for.
	d.MustBuildctl(t, "debug", "ctl", "--pin", ref)
	free := fill(t, filepath.Dir(d.Root))
	d.MustBuildctl(t, "debug", "ctl", "--delete", ref)
	d.Build(t, dockerfile(t, "FROM busybox", "RUN head -c 10000000 /dev/urandom > /large"))
	free()
	d.Restart(t)
	require.NotContains(t, d.MustBuildctl(t, "debug", "histories").Stdout, ref)
}
