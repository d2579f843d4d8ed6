package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// cgroupVariable, when true, asks for makeCgroupRoot at start: images of the daemon set it.
const cgroupVariable = "BUILDKIT_SETUP_CGROUPV2_ROOT"

// setUpCgroups does what the environment asks for. Builds without limits work all the same.
func setUpCgroups(ctx context.Context) {
	if on, _ := strconv.ParseBool(os.Getenv(cgroupVariable)); !on {
		return
	}
	if err := makeCgroupRoot("/sys/fs/cgroup"); err != nil {
		log.G(ctx).WithError(err).Warn("steps may have no limits of resources")
	}
}

// makeCgroupRoot lets the groups below a cgroup of version 2 have limits: it moves the processes of
// root to a group of their own, for a group with processes cannot limit those below it, and switches
// on every controller. In a container, whose group looks like the root, nobody else does. It does
// nothing where there are no cgroups of version 2.
func makeCgroupRoot(root string) error {
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	own := filepath.Join(root, "init")
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := moveProcesses(root, own); err != nil {
		return err
	}
	var errs []error
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			errs = append(errs, fmt.Errorf("controller %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// moveProcesses moves all processes of a group to another, also those that they start meanwhile.
func moveProcesses(from, to string) error {
	for {
		pids, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
		if err != nil {
			return err
		}
		moved := false
		for _, pid := range strings.Fields(string(pids)) {
			if pid == "0" {
				continue // of another namespace: cannot be named
			}
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0)
			switch {
			case err == nil:
				moved = true
			case errors.Is(err, unix.ESRCH):
				// it has ended
			default:
				return fmt.Errorf("move process %s to %s: %w", pid, to, err)
			}
		}
		if !moved {
			return nil
		}
	}
}
