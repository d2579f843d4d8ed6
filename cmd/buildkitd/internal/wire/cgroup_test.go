package wire

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
)

func TestProcessesLeaveTheGroupThatIsToHaveLimitedOnes(t *testing.T) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup2"))
	require.NoError(t, err)
	require.NotEmpty(t, mounts, "no cgroup2 is mounted")
	root := filepath.Join(mounts[0].Mountpoint, filepath.Base(t.TempDir())+fmt.Sprint(os.Getpid()))
	require.NoError(t, os.Mkdir(root, 0o755))
	t.Cleanup(func() { require.NoError(t, os.Remove(root)) })

	var pids []string
	for range 3 {
		sleep := exec.Command("sleep", "1000")
		require.NoError(t, sleep.Start())
		t.Cleanup(func() {
			require.NoError(t, sleep.Process.Kill())
			_ = sleep.Wait()
			_ = os.Remove(filepath.Join(root, "init")) // by the last one
		})
		pids = append(pids, fmt.Sprint(sleep.Process.Pid))
		require.NoError(t, os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pids[len(pids)-1]), 0))
	}
	for range 2 {
		require.NoError(t, makeCgroupRoot(root))
		text := func(name string) string {
			data, err := os.ReadFile(filepath.Join(root, name))
			require.NoError(t, err)
			return string(data)
		}
		require.Empty(t, text("cgroup.procs"))
		require.ElementsMatch(t, pids, strings.Fields(text("init/cgroup.procs")))
		require.ElementsMatch(t, strings.Fields(text("cgroup.controllers")), strings.Fields(text("cgroup.subtree_control")))
	}
}

func TestGroupsOfTheFirstVersionAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, makeCgroupRoot(dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
