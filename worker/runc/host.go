package runc

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	capability "github.com/containerd/containerd/v2/pkg/cap"
	"github.com/moby/profiles/seccomp"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/openbuildkit/buildkit/worker/spec"
)

// newHost reads what specifications depend on.
func newHost(conf RuntimeConfig) (spec.Host, error) {
	h := spec.Host{
		CgroupV2:         cgroups.Mode() == cgroups.Unified,
		Rootless:         conf.Rootless,
		NoProcessSandbox: conf.NoProcessSandbox,
		AppArmorProfile:  conf.AppArmorProfile,
	}
	caps, err := capability.Current()
	if err != nil {
		return h, fmt.Errorf("read own capabilities: %w", err)
	}
	h.Capabilities = caps
	if seccompEnabled() {
		// The profile depends on the capabilities: calls that they guard are allowed with them.
		sandboxed := &specs.Spec{Process: &specs.Process{
			Capabilities: &specs.LinuxCapabilities{Bounding: spec.DefaultCapabilities()},
		}}
		if h.Seccomp, err = seccomp.GetDefaultProfile(sandboxed); err != nil {
			return h, fmt.Errorf("seccomp profile: %w", err)
		}
	}
	if !userns.RunningInUserNS() {
		h.Devices = insecureDevices()
	}
	return h, nil
}

func seccompEnabled() bool {
	_, err := os.Stat("/proc/sys/kernel/seccomp/actions_avail")
	return err == nil
}

// spareLoops is how many loop devices an insecure container gets beyond those that the host has.
const spareLoops = 8

// insecureDevices are the nodes that building disk images and virtual machines needs. Numbers are
// those of the kernel's Documentation/admin-guide/devices.txt.
func insecureDevices() []specs.LinuxDevice {
	mode := os.FileMode(0o666)
	dev := func(path, kind string, major, minor int64) specs.LinuxDevice {
		return specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor, FileMode: &mode}
	}
	out := []specs.LinuxDevice{
		dev("/dev/kmsg", "c", 1, 11),
		dev("/dev/cuse", "c", 10, 203),
		dev("/dev/fuse", "c", 10, 229),
		dev("/dev/kvm", "c", 10, 232),
		dev("/dev/net/tun", "c", 10, 200),
		dev("/dev/loop-control", "c", 10, 237),
	}
	for i := range hostLoops() + spareLoops {
		out = append(out, dev(fmt.Sprintf("/dev/loop%d", i), "b", 7, int64(i)))
	}
	return out
}

// hostLoops returns the number of loop devices up to the highest that the kernel has now.
func hostLoops() int {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), "loop"); ok {
			if i, err := strconv.Atoi(s); err == nil {
				n = max(n, i+1)
			}
		}
	}
	return n
}
