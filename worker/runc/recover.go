package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gorunc "github.com/containerd/go-runc"
	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/worker/spec"
)

// exists tells whether the OCI runtime knows the container.
func (o *oci) exists(id string) bool {
	_, err := os.Lstat(filepath.Join(o.state, id))
	return err == nil
}

// Recover removes what a daemon that was killed has left in the runtime's folder: containers with
// their processes and cgroups, mounts, files. It is called once, before the first Run.
func (r *Runtime) Recover(ctx context.Context) error {
	containers, err := names(r.dirs.state)
	if err != nil {
		return err
	}
	bundles, err := names(r.dirs.bundles)
	if err != nil {
		return err
	}
	if len(containers)+len(bundles) > 0 {
		log.G(ctx).Infof("removing %d containers that were left", max(len(containers), len(bundles)))
	}
	var errs []error
	for _, id := range containers {
		errs = append(errs, r.removeLeftover(ctx, id))
	}
	for _, id := range bundles {
		errs = append(errs, removeCgroup(spec.CgroupsPath(r.conf.CgroupParent, id)))
	}
	if err := unmountBelow(r.dirs.bundles, r.dirs.secrets); err != nil {
		return errors.Join(append(errs, err)...) // what is mounted must not be removed
	}
	for _, id := range bundles {
		errs = append(errs, removeBundle(filepath.Join(r.dirs.bundles, id)))
	}
	secrets, err := names(r.dirs.secrets)
	errs = append(errs, err)
	for _, name := range secrets {
		errs = append(errs, os.Remove(filepath.Join(r.dirs.secrets, name)))
	}
	return errors.Join(errs...)
}

// removeLeftover deletes a container by force; one that its runtime cannot read any more, perhaps
// because it was written by half, loses its state.
func (r *Runtime) removeLeftover(ctx context.Context, id string) error {
	for _, systemd := range []bool{false, true} {
		client := gorunc.Runc{Command: r.oci.binary, Root: r.oci.state, SystemdCgroup: systemd}
		err := client.Delete(ctx, id, &gorunc.DeleteOpts{Force: true})
		if err == nil || !r.oci.exists(id) {
			return nil
		}
	}
	return os.RemoveAll(filepath.Join(r.oci.state, id))
}

// removeCgroup kills what is in the cgroup, in every hierarchy, and removes it.
func removeCgroup(cgroupsPath string) error {
	if spec.IsSystemdPath(cgroupsPath) {
		return nil // systemd removes a scope with its last process
	}
	dirs := []string{filepath.Join(cgroupRoot, cgroupsPath)}
	hierarchies, err := names(cgroupRoot)
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		dirs = append(dirs, filepath.Join(cgroupRoot, h, cgroupsPath))
	}
	var errs []error
	for _, dir := range dirs {
		killCgroup(dir)
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func killCgroup(dir string) {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, line := range strings.Fields(string(procs)) {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err == nil && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// unmountBelow takes all mounts below the folders away, the last first.
func unmountBelow(dirs ...string) error {
	found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.ContainsFunc(dirs, func(d string) bool {
			return strings.HasPrefix(m.Mountpoint, d+"/")
		}), false
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(found) {
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}

func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}
