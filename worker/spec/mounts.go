package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Paths of proc and sys that tell or change too much about the host.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	}
)

// FileMount returns the mount of a file that the daemon made for the container.
func FileMount(source, dest string) specs.Mount {
	return specs.Mount{
		Destination: dest, Type: "bind", Source: source,
		Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"},
	}
}

func defaultMounts(h Host, insecure, hostNetwork bool) []specs.Mount {
	return []specs.Mount{
		procMount(h),
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		ptsMount(h),
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		sysMount(h, insecure, hostNetwork),
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", access(insecure)}},
	}
}

func ptsMount(h Host) specs.Mount {
	options := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if !h.Rootless { // the group may not be one of the user namespace
		options = append(options, "gid=5")
	}
	return specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: options}
}

func procMount(h Host) specs.Mount {
	if h.NoProcessSandbox {
		// A new proc cannot be mounted where the host masks its own.
		return specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
	}
	return specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}
}

func sysMount(h Host, insecure, hostNetwork bool) specs.Mount {
	if h.Rootless && hostNetwork {
		// sysfs belongs to the network namespace: a new one cannot be mounted in the host's.
		return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}}
	}
	return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access(insecure)}}
}

func access(writable bool) string {
	if writable {
		return "rw"
	}
	return "ro"
}

// mounts returns the default mounts and the given ones, every mount behind those it stands on.
func mounts(h Host, insecure, hostNetwork bool, own []specs.Mount) []specs.Mount {
	all := append(defaultMounts(h, insecure, hostNetwork), own...)
	last := make(map[string]int, len(all))
	for i := range all {
		all[i].Destination = path.Join("/", all[i].Destination)
		last[all[i].Destination] = i
	}
	out := make([]specs.Mount, 0, len(last))
	for i, m := range all {
		if last[m.Destination] == i {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
	return out
}

func depth(p string) int {
	if p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}
