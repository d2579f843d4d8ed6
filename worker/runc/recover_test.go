package runc

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/runtimetest"
)

// daemonVar names the folder of the runtime that the test binary runs a container in, as a daemon.
const daemonVar = "RUNC_TEST_DAEMON"

func TestMain(m *testing.M) {
	if root := os.Getenv(daemonVar); root != "" {
		if err := daemon(root); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// daemon runs a container that does not end and tells when it has started.
func daemon(root string) error {
	ctx := context.Background()
	r, err := NewRuntime(ctx, RuntimeConfig{Root: filepath.Join(root, "runtime"), CgroupParent: "recover"})
	if err != nil {
		return err
	}
	started, done := make(chan struct{}), make(chan error, 1)
	secret := worker.SecretMount(r.SecretDir(), worker.Secret{Data: []byte("hush")})
	tree := runtimetest.Dir(filepath.Join(root, "tree"))
	go func() {
		done <- r.Run(ctx, worker.Container{
			Root:   worker.Mount{Source: tree, Dest: "/"},
			Mounts: []worker.Mount{{Source: tree, Dest: "/m", Selector: "etc"}, {Source: secret, Dest: "/s"}},
		}, worker.Process{Args: []string{"/bin/sleep", "1000"}, Stderr: os.Stderr}, started)
	}()
	select {
	case <-started:
		fmt.Println("started")
		return <-done
	case err := <-done:
		return err
	}
}

// A daemon that is killed leaves its containers running. The next one finds them in its folder.
func TestRecoverRemovesWhatAnEarlierDaemonLeft(t *testing.T) {
	root := t.TempDir()
	tree := runtimetest.NewTree(t)
	require.NoError(t, os.Rename(tree.Lower, filepath.Join(root, "tree")))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), daemonVar+"="+root)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "started\n", line)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	r, err := NewRuntime(t.Context(), RuntimeConfig{Root: filepath.Join(root, "runtime"), CgroupParent: "recover"})
	require.NoError(t, err)
	t.Cleanup(func() { removeCgroupParents("/recover") })
	require.NotEmpty(t, traces(t, r))
	require.NoError(t, r.Recover(t.Context()))
	require.Empty(t, traces(t, r))
	// What is in the trees is not the runtime's to remove.
	require.FileExists(t, filepath.Join(root, "tree/etc/passwd"))
}

func TestRecoverRemovesStateThatIsBroken(t *testing.T) {
	r := newRuntime(t, "runc")
	require.NoError(t, os.MkdirAll(filepath.Join(r.dirs.state, "half"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(r.dirs.state, "half/state.json"), []byte("{"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(r.dirs.bundles, "half/rootfs"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(r.dirs.bundles, "half/config.json"), nil, 0o600))
	require.NoError(t, r.Recover(t.Context()))
	require.Empty(t, traces(t, r))
}

func TestAFolderIsNeverRemovedThroughAMountThatStayed(t *testing.T) {
	dir := t.TempDir()
	bundle := filepath.Join(dir, "b")
	require.NoError(t, os.MkdirAll(filepath.Join(bundle, "rootfs/data"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(bundle, "config.json"), nil, 0o600))
	require.Error(t, removeBundle(bundle))
	require.DirExists(t, filepath.Join(bundle, "rootfs/data"))
}
