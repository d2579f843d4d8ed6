package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// markerVariable is in the environment of a daemon and of what it starts; its value is the
// daemon's name.
const markerVariable = "BUILDKIT_TEST_DAEMON"

const cgroupRoot = "/sys/fs/cgroup"

// RequireIdle fails the test unless the running daemon, with no build at work, holds no container:
// no process but itself, no container's cgroup, no state of a runtime, no mount below its root.
// What a build leaves to a background goroutine gets some seconds to go.
func (d *Daemon) RequireIdle(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		leaks := d.leaks()
		if len(leaks) == 0 {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			tb.Fatalf("the idle daemon still holds:\n%s", strings.Join(leaks, "\n"))
		}
	}
}

// leaks returns what there is of the daemon's doing, one line each: everything, when it has
// stopped; what no idle daemon has, when it runs.
func (d *Daemon) leaks() []string {
	kinds := []struct {
		name string
		list func() ([]string, error)
	}{
		{"mount", d.mounts},
		{"process", d.processes},
		{"cgroup", d.cgroups},
		{"container", d.containers},
		{"temporary file", d.temporaryFiles},
	}
	var found []string
	for _, kind := range kinds {
		list, err := kind.list()
		for _, item := range list {
			found = append(found, kind.name+" "+item)
		}
		if err != nil {
			found = append(found, fmt.Sprintf("(not every %s can be listed: %v)", kind.name, err))
		}
	}
	return found
}

// mounts returns the mount points below the folder of the daemon, as this process and, while it
// runs, the daemon see them.
func (d *Daemon) mounts() ([]string, error) {
	pids := []string{"self"}
	if !d.stopped {
		pids = append(pids, strconv.Itoa(d.Pid()))
	}
	var found []string
	for _, pid := range pids {
		file, err := os.Open(filepath.Join("/proc", pid, "mountinfo"))
		if err != nil {
			return found, err
		}
		infos, err := mountinfo.GetMountsFromReader(file, mountinfo.PrefixFilter(d.dir))
		file.Close()
		if err != nil {
			return found, err
		}
		for _, info := range infos {
			if !slices.Contains(found, info.Mountpoint) {
				found = append(found, info.Mountpoint)
			}
		}
	}
	return found, nil
}

// processes returns those that the daemon started, itself left out: they have its marker in their
// environment, are in one of its cgroups, or have their root below its folder.
func (d *Daemon) processes() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() || (!d.stopped && pid == d.Pid()) {
			continue
		}
		if d.started(pid) {
			found = append(found, describe(pid))
		}
	}
	return found, nil
}

// started tells whether the daemon started a process. One that is gone, or a zombie, it did not.
func (d *Daemon) started(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if isZombie(proc) {
		return false // it still names its cgroup
	}
	if environ, err := os.ReadFile(filepath.Join(proc, "environ")); err == nil {
		if slices.Contains(strings.Split(string(environ), "\x00"), markerVariable+"="+d.marker) {
			return true
		}
	}
	if cgroups, err := os.ReadFile(filepath.Join(proc, "cgroup")); err == nil {
		for line := range strings.Lines(string(cgroups)) {
			if slices.Contains(strings.Split(strings.TrimSpace(line), "/"), d.marker) {
				return true
			}
		}
	}
	root, err := os.Readlink(filepath.Join(proc, "root"))
	return err == nil && strings.HasPrefix(root, d.dir+"/")
}

// isZombie tells whether a process, by its folder, has ended and nobody has waited for it: an orphan waits for
// whoever is process 1, which may take its time.
func isZombie(proc string) bool {
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return false
	}
	// The name before it may have spaces and parentheses.
	_, state, found := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	return found && bytes.HasPrefix(state, []byte("Z"))
}

// describe returns the id and the command line of a process.
func describe(pid int) string {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return strconv.Itoa(pid)
	}
	return fmt.Sprintf("%d: %s", pid, bytes.TrimSpace(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
}

// cgroups returns the cgroups of containers: every folder below <parent>/buildkit, in whichever
// hierarchy. The two folders above them stay while the daemon lives, and are no leak.
func (d *Daemon) cgroups() ([]string, error) {
	parents, err := d.cgroupParents()
	var found []string
	for _, parent := range parents {
		list, err := names(filepath.Join(parent, "buildkit"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		for _, name := range list {
			if info, err := os.Stat(filepath.Join(parent, "buildkit", name)); err == nil && info.IsDir() {
				found = append(found, filepath.Join(parent, "buildkit", name))
			}
		}
	}
	return found, err
}

// cgroupParents returns the folders that stand for the daemon's cgroup parent.
func (d *Daemon) cgroupParents() ([]string, error) {
	var found []string
	err := filepath.WalkDir(cgroupRoot, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // another test's cgroup went away
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == d.marker:
			found = append(found, path)
			return filepath.SkipDir
		}
		return nil
	})
	return found, err
}

// containers returns the folders in which a runtime keeps the state of a container: runc calls the
// file state.json, crun status. Trees of files are not looked into.
func (d *Daemon) containers() ([]string, error) {
	var found []string
	err := filepath.WalkDir(d.Root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // went away meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "snapshots" || entry.Name() == "content" || entry.Name() == "rootfs"):
			return filepath.SkipDir
		case entry.Name() == "state.json" || entry.Name() == "status":
			found = append(found, filepath.Dir(path))
		}
		return nil
	})
	return found, err
}

// temporaryFiles returns what a daemon left in the folder for temporary files. A running one may
// have some, and a killed one had no chance to remove them.
func (d *Daemon) temporaryFiles() ([]string, error) {
	if !d.stopped || d.killed {
		return nil, nil
	}
	return names(d.tempDir())
}

// cleanUp removes all that there may be of a stopped daemon, so that a leak of one test does not
// fail the next.
func (d *Daemon) cleanUp(tb testing.TB) {
	tb.Helper()
	if entries, err := os.ReadDir("/proc"); err == nil {
		for _, entry := range entries {
			if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() && d.started(pid) {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					tb.Logf("kill %d: %v", pid, err)
				}
			}
		}
	}
	mounts, err := d.mounts()
	if err != nil {
		tb.Logf("list mounts: %v", err)
	}
	// The deepest first; one that is still busy goes when it no longer is.
	slices.SortFunc(mounts, func(a, b string) int { return len(b) - len(a) })
	for _, mount := range mounts {
		if err := unix.Unmount(mount, unix.MNT_DETACH); err != nil {
			tb.Logf("unmount %s: %v", mount, err)
		}
	}
	if parents, err := d.cgroupParents(); err == nil {
		for _, parent := range parents {
			removeCgroup(parent)
		}
	}
	if mounts, err := d.mounts(); err != nil || len(mounts) > 0 {
		tb.Errorf("%s is kept: mounts below it: %v (%v)", d.dir, mounts, err)
		return
	}
	if err := os.RemoveAll(d.dir); err != nil {
		tb.Errorf("remove the daemon's state: %v", err)
	}
}

// removeCgroup removes a cgroup and those below it. One with processes stays: they were killed and
// may not be gone yet, and an empty name in /sys harms nobody.
func removeCgroup(path string) {
	list, err := names(path)
	if err != nil {
		return
	}
	for _, name := range list {
		if info, err := os.Stat(filepath.Join(path, name)); err == nil && info.IsDir() {
			removeCgroup(filepath.Join(path, name))
		}
	}
	_ = unix.Rmdir(path)
}

// names returns what a folder holds.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var list []string
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list, err
}
