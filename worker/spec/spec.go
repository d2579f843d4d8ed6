// Package spec turns a container and a process into the OCI runtime specification that an external
// runtime takes.
//
// It is pure: what it needs to know of the machine is in a Host, what it needs to know of the
// container's tree (who the user is, where mounts come from) is resolved by the caller, the runtime
// packages. It decides the isolation: namespaces, capabilities, the seccomp profile, masked and
// read-only paths, devices. Only a process of security mode INSECURE gets less of it, and the caller
// has checked that it may.
package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/network"
)

// version is the oldest of the runtime specification that has all we use: older runtimes refuse one
// that they do not know.
const version = "1.0.2"

// DefaultHostname is the name of containers that ask for none.
const DefaultHostname = "buildkitsandbox"

// Host is what specifications depend on besides the container. It is the same for every container
// of a worker and is not changed.
type Host struct {
	// Seccomp is the profile of sandboxed processes; nil is none.
	Seccomp *specs.LinuxSeccomp
	// Capabilities are all that this daemon has to give: those of insecure processes.
	Capabilities []string
	// Devices are what insecure containers get beyond the default devices.
	Devices []specs.LinuxDevice
	// CgroupV2 is true where the unified hierarchy is the only one.
	CgroupV2 bool
	// Rootless leaves out limits: the daemon may not write to cgroups.
	Rootless bool
	// NoProcessSandbox leaves processes in the daemon's PID namespace, for hosts that mask /proc.
	NoProcessSandbox bool
	// AppArmorProfile is of sandboxed processes; empty is none.
	AppArmorProfile string
}

// Input is a container with what the caller has resolved for it.
type Input struct {
	ID        string
	Container worker.Container
	Process   worker.Process
	User      User
	// Rootfs is the folder of the host where the root is mounted.
	Rootfs string
	// Mounts are the container's own and those of /etc/hosts and /etc/resolv.conf. A later one
	// hides an earlier one at the same destination, and a default one.
	Mounts  []specs.Mount
	Network network.Namespace
	// CgroupsPath is as CgroupsPath returns it.
	CgroupsPath string
	// ProcessLabel and MountLabel are SELinux labels; empty where it is off.
	ProcessLabel, MountLabel string
}

// User is the numeric identity of a process.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
}

// Build returns the specification. Errors are of the request: an unknown ulimit, a bad variable.
func Build(h Host, in Input) (*specs.Spec, error) {
	proc, err := Process(h, in.Container, in.Process, in.User)
	if err != nil {
		return nil, err
	}
	insecure := in.Container.Security == pb.SecurityMode_INSECURE
	s := &specs.Spec{
		Version:  version,
		Process:  proc,
		Root:     &specs.Root{Path: in.Rootfs, Readonly: in.Container.ReadonlyRoot},
		Hostname: Hostname(in.Container.Hostname),
		Mounts:   mounts(h, insecure, in.Network.Host, in.Mounts),
		Linux: &specs.Linux{
			Namespaces:  namespaces(h, in.Network),
			CgroupsPath: in.CgroupsPath,
			Resources:   resources(h, insecure, in.Container.Resources),
		},
	}
	if insecure {
		s.Linux.Devices = slices.Clone(h.Devices)
		return s, nil
	}
	s.Linux.Seccomp = h.Seccomp
	s.Linux.MaskedPaths = slices.Clone(maskedPaths)
	s.Linux.ReadonlyPaths = slices.Clone(readonlyPaths)
	s.Process.SelinuxLabel = in.ProcessLabel
	s.Linux.MountLabel = in.MountLabel
	return s, nil
}

// Hostname returns name, or the default one if it is empty.
func Hostname(name string) string {
	if name == "" {
		return DefaultHostname
	}
	return name
}

// CgroupsPath returns where the container id has its cgroup: <parent>/buildkit/<id>, absolute, or
// for a parent in the form of systemd (X.slice:prefix:) that with the id as the name of the scope.
func CgroupsPath(parent, id string) string {
	if IsSystemdPath(parent) {
		return strings.TrimSuffix(parent, ":") + ":" + id
	}
	return path.Join("/", parent, "buildkit", id)
}

// IsSystemdPath tells whether a cgroup parent or path is one that systemd has to make.
func IsSystemdPath(p string) bool {
	slice, rest, ok := strings.Cut(p, ":")
	return ok && strings.HasSuffix(slice, ".slice") && rest != ""
}

func namespaces(h Host, n network.Namespace) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.MountNamespace},
	}
	if !h.NoProcessSandbox {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if h.CgroupV2 {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if !n.Host {
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.Path})
	}
	return ns
}

func resources(h Host, insecure bool, r *pb.LinuxResources) *specs.LinuxResources {
	if h.Rootless {
		return nil
	}
	out := &specs.LinuxResources{
		// The runtime itself adds the default devices.
		Devices: []specs.LinuxDeviceCgroup{{Allow: insecure, Access: "rwm"}},
	}
	if r == nil {
		return out
	}
	if r.Memory > 0 || r.MemorySwap != 0 {
		out.Memory = &specs.LinuxMemory{Limit: nonZero(r.Memory), Swap: nonZero(r.MemorySwap)}
	}
	if r.CpuShares > 0 || r.CpuPeriod > 0 || r.CpuQuota != 0 || r.CpusetCpus != "" || r.CpusetMems != "" {
		out.CPU = &specs.LinuxCPU{
			Shares: nonZero(r.CpuShares), Period: nonZero(r.CpuPeriod), Quota: nonZero(r.CpuQuota),
			Cpus: r.CpusetCpus, Mems: r.CpusetMems,
		}
	}
	return out
}

func nonZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// ulimits are the resource limits of Linux, as they are named in requests.
var ulimits = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}

func rlimits(in []*pb.Ulimit) ([]specs.POSIXRlimit, error) {
	var out []specs.POSIXRlimit
	for _, u := range in {
		if !slices.Contains(ulimits, strings.ToLower(u.GetName())) {
			return nil, fmt.Errorf("unknown ulimit %q", u.GetName())
		}
		// -1 is "unlimited", which the kernel has as the largest number.
		out = append(out, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.GetName()),
			Soft: uint64(u.GetSoft()), Hard: uint64(u.GetHard()),
		})
	}
	return out, nil
}
