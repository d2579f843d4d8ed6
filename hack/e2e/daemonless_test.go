package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// daemonless runs buildctl-daemonless.sh with a shell, its words first, and more environment.
func daemonless(t *testing.T, shell string, env []string, args ...string) (stderr string, code int) {
	t.Helper()
	bin := harness.Binaries(t)
	words := append(strings.Fields(shell), filepath.Join(harness.Root(t), "cmd/buildctl/buildctl-daemonless.sh"))
	words = append(words, args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "BUILDCTL="+bin+"/buildctl", "BUILDKITD="+bin+"/buildkitd")
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
	}
	left, err := filepath.Glob("/tmp/buildctl-daemonless.*")
	require.NoError(t, err)
	require.Empty(t, left)
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestACommandHasADaemonOfItsOwn(t *testing.T) {
	const socket = "/run/buildkit/buildkitd.sock"
	root := t.TempDir()
	silent := filepath.Join(t.TempDir(), "daemon")
	require.NoError(t, os.WriteFile(silent, []byte("exec sleep 100\n"), 0o600))
	flags := "BUILDKITD_FLAGS=--root=" + root + " --oci-worker-gc=false"
	for name, shell := range map[string]string{"dash": "dash", "busybox": "busybox sh", "bash": "bash"} {
		t.Run(name, func(t *testing.T) {
			dir, out := dockerfile(t, "FROM scratch", "COPY Dockerfile /made"), t.TempDir()
			stderr, code := daemonless(t, shell, []string{flags}, harness.DockerfileArgs(dir, toLocal(out))...)
			require.Zero(t, code, stderr)
			require.FileExists(t, filepath.Join(out, "made"))
			require.NoFileExists(t, socket, "the daemon has ended")

			stderr, code = daemonless(t, shell, []string{flags}, "build", "--frontend=none")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "invalid frontend: none")
			require.NoFileExists(t, socket)

			stderr, code = daemonless(t, shell, []string{"BUILDKITD_FLAGS=--nothing"}, "du")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "could not connect to unix://"+socket)
			require.Contains(t, stderr, "unknown flag: --nothing")

			stderr, code = daemonless(t, shell, []string{"BUILDKITD=sh", "BUILDKITD_FLAGS=" + silent, "BUILDCTL_CONNECT_RETRIES_MAX=2"}, "du")
			require.Equal(t, 1, code)
			require.Contains(t, stderr, "after 2 trials")
		})
	}
}

func TestACommandOfAnUnprivilegedUserHasARootlessDaemon(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	rootlesskit := filepath.Join(dir, "rootlesskit")
	require.NoError(t, os.WriteFile(rootlesskit, []byte("#!/bin/sh\necho \"$@\" > "+dir+"/args\n"), 0o755))
	_, code := daemonless(t, "setpriv --reuid=65534 --regid=65534 --clear-groups sh", []string{
		"ROOTLESSKIT=" + rootlesskit, "BUILDKITD=daemon", "BUILDKITD_FLAGS=--one --two", "XDG_RUNTIME_DIR=/x", "BUILDCTL=false",
	}, "du")
	require.Equal(t, 1, code)
	require.Equal(t, "daemon --one --two --addr=unix:///x/buildkit/buildkitd.sock\n", read(t, dir, "args"))
}
