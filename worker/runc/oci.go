package runc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/openbuildkit/buildkit/worker/spec"
)

// binaries are the OCI runtimes that are looked for, in this order.
var binaries = []string{"buildkit-runc", "runc", "crun"}

// ErrNoRuntime says that there is no OCI runtime on this machine.
var ErrNoRuntime = errors.New("no OCI runtime found in PATH: install runc or crun")

// FindBinary returns the path of the OCI runtime: that called name if it is not empty.
func FindBinary(name string) (string, error) {
	if name != "" {
		p, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("OCI runtime: %w", err)
		}
		return p, nil
	}
	for _, name := range binaries {
		if p, err := exec.LookPath(name); err == nil {
			return p, nil
		}
	}
	return "", ErrNoRuntime
}

// oci is the command line of an OCI runtime.
type oci struct {
	binary, state string
	// stays: the runtime is kept in the foreground for as long as a process runs, and removes the
	// container when that ends. runc starts a process and ends instead, so that the process is ours and
	// nobody stands between us. Others do not all give it to us: crun leaves it to a helper that goes
	// when it likes, that of a sandboxed runtime is another one.
	stays bool
}

func newOCI(ctx context.Context, name, state string) (*oci, error) {
	binary, err := FindBinary(name)
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", binary, err)
	}
	return &oci{binary: binary, state: state, stays: !strings.HasPrefix(string(version), "runc ")}, nil
}

// commander returns what makes a command of the OCI runtime that starts a process in the container
// id: args and the options given to it, the container's name last. Its files are in dir. It
// is in a process group of its own: the signals of a terminal are the daemon's alone.
func (o *oci) commander(cgroupsPath, dir, id string, args ...string) func(options ...string) *exec.Cmd {
	all := []string{"--root", o.state, "--log", filepath.Join(dir, logFile), "--log-format", "json"}
	if spec.IsSystemdPath(cgroupsPath) {
		all = append(all, "--systemd-cgroup")
	}
	all = append(append(all, args...), "--pid-file", filepath.Join(dir, pidFile))
	if !o.stays {
		all = append(all, "--detach")
	}
	return func(options ...string) *exec.Cmd {
		cmd := exec.Command(o.binary, append(append(all, options...), id)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Env = daemonEnv()
		return cmd
	}
}

// daemonEnv returns the environment without what would make the runtime talk to systemd in the
// daemon's name.
func daemonEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "NOTIFY_SOCKET=") && !strings.HasPrefix(kv, "LISTEN_") {
			out = append(out, kv)
		}
	}
	return out
}
