package runc

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/worker/runtimetest"
)

func TestRuntimeConformance(t *testing.T) {
	for _, binary := range []string{"runc", "crun"} {
		t.Run(binary, func(t *testing.T) {
			before := dead(t)
			t.Cleanup(func() { require.Subset(t, before, dead(t), "processes that nobody has waited for") })
			runtimetest.Run(t, func(t *testing.T) runtimetest.Fixture {
				r := newRuntime(t, binary)
				return runtimetest.Fixture{
					Runtime: r, SecretDir: r.SecretDir(),
					Traces: func(t *testing.T) []string { return traces(t, r) },
				}
			})
		})
	}
}

func newRuntime(t *testing.T, binary string) *Runtime {
	t.Helper()
	dir := t.TempDir()
	if binary == "crun" {
		binary = crunOnHybrid(t)
	}
	r, err := NewRuntime(t.Context(), RuntimeConfig{Root: dir, Binary: binary, CgroupParent: "/bk-" + filepath.Base(filepath.Dir(dir))})
	require.NoError(t, err)
	require.NoError(t, r.Recover(t.Context()))
	t.Cleanup(func() { removeCgroupParents(r.conf.CgroupParent) })
	return r
}

// crunOnHybrid returns crun, on a host with cgroups of both versions wrapped such that it sees those
// of version 1 alone: it refuses to work with both.
func crunOnHybrid(t *testing.T) string {
	t.Helper()
	crun, err := exec.LookPath("crun")
	require.NoError(t, err, "install crun")
	const unified = cgroupRoot + "/unified"
	if _, err := os.Stat(unified + "/cgroup.controllers"); err != nil {
		return crun
	}
	wrapper := filepath.Join(t.TempDir(), "crun")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare -m sh -c 'umount %s; exec %s \"$@\"' crun \"$@\"\n", unified, crun)
	require.NoError(t, os.WriteFile(wrapper, []byte(script), 0o755))
	return wrapper
}

// removeCgroupParents removes the cgroups above those of containers, which stay otherwise.
func removeCgroupParents(parent string) {
	for _, pattern := range []string{cgroupRoot + parent, cgroupRoot + "/*" + parent} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			os.Remove(dir + "/buildkit")
			os.Remove(dir)
		}
	}
}

// traces lists what the runtime has on the host.
func traces(t *testing.T, r *Runtime) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{r.dirs.state, r.dirs.bundles, r.dirs.secrets} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(r.conf.Root))
	require.NoError(t, err)
	for _, m := range mounts {
		out = append(out, "mount "+m.Mountpoint)
	}
	for _, pattern := range []string{cgroupRoot + "/" + r.conf.CgroupParent, cgroupRoot + "/*/" + r.conf.CgroupParent} {
		cgroups, err := filepath.Glob(pattern + "/buildkit/*/cgroup.procs")
		require.NoError(t, err)
		for _, c := range cgroups {
			out = append(out, "cgroup "+strings.TrimSuffix(c, "/cgroup.procs"))
		}
	}
	return out
}
