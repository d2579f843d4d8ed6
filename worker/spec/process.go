package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker"
)

// defaultCapabilities are those a sandboxed process has if it runs as root, and the most that it
// can gain otherwise. The set is Docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// Process returns the specification of a process of the container c: its init or another one.
func Process(h Host, c worker.Container, p worker.Process, u User) (*specs.Process, error) {
	if len(p.Args) == 0 {
		return nil, errors.New("process has no arguments")
	}
	env, err := environment(p)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(c.Ulimits)
	if err != nil {
		return nil, err
	}
	out := &specs.Process{
		Terminal: p.Tty,
		User:     specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups},
		Args:     p.Args,
		Env:      env,
		Cwd:      Cwd(p),
		Rlimits:  limits,
	}
	if c.Security == pb.SecurityMode_INSECURE {
		all := h.Capabilities
		out.Capabilities = &specs.LinuxCapabilities{
			Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all,
		}
		return out, nil
	}
	// Neither inheritable nor ambient: a process that gives root up keeps nothing.
	caps := slices.Clone(defaultCapabilities)
	out.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	out.ApparmorProfile = h.AppArmorProfile
	return out, nil
}

// Cwd returns the working folder of p.
func Cwd(p worker.Process) string {
	if p.Cwd == "" {
		return "/"
	}
	return p.Cwd
}

// environment returns the variables with the last of equal keys in the place of the first. What is
// no assignment sets nothing: configurations of images have such entries.
func environment(p worker.Process) ([]string, error) {
	index := make(map[string]int, len(p.Env)+1)
	out := make([]string, 0, len(p.Env)+1)
	for _, kv := range p.Env {
		key, _, ok := strings.Cut(kv, "=")
		if !ok {
			continue
		}
		if key == "" {
			return nil, fmt.Errorf("invalid environment variable %q", kv)
		}
		if strings.ContainsRune(kv, 0) {
			return nil, fmt.Errorf("environment variable %q contains a null byte", key)
		}
		if i, dup := index[key]; dup {
			out[i] = kv
			continue
		}
		index[key] = len(out)
		out = append(out, kv)
	}
	if _, ok := index["TERM"]; p.Tty && !ok {
		out = append(out, "TERM=xterm")
	}
	return out, nil
}

// DefaultCapabilities returns the capabilities of sandboxed processes.
func DefaultCapabilities() []string { return slices.Clone(defaultCapabilities) }
