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
	// keep: "run" can leave the container behind when it has ended, so that its cgroup can be
	// read. runc can since 1.1; crun cannot.
	keep bool
	// console: a terminal in the foreground has a size only if we take it over a console socket,
	// which runc in turn refuses in the foreground.
	console bool
}

func newOCI(ctx context.Context, name, state string) (*oci, error) {
	binary, err := FindBinary(name)
	if err != nil {
		return nil, err
	}
	o := &oci{binary: binary, state: state}
	version, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", binary, err)
	}
	o.console = strings.HasPrefix(string(version), "crun ")
	help, err := exec.CommandContext(ctx, binary, "run", "--help").Output()
	if err != nil {
		return nil, fmt.Errorf("%s run --help: %w", binary, err)
	}
	o.keep = strings.Contains(string(help), "--keep")
	return o, nil
}

// commander returns what makes a command of the OCI runtime that lives as long as a process in the
// container id: args and the options given to it, the container's name last. Its files are in dir. It
// is in a process group of its own: the signals of a terminal are the daemon's alone.
func (o *oci) commander(cgroupsPath, dir, id string, args ...string) func(options ...string) *exec.Cmd {
	all := []string{"--root", o.state, "--log", filepath.Join(dir, logFile), "--log-format", "json"}
	if spec.IsSystemdPath(cgroupsPath) {
		all = append(all, "--systemd-cgroup")
	}
	all = append(append(all, args...), "--pid-file", filepath.Join(dir, pidFile))
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
