package main

import (
	"fmt"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// addAbsent adds the flags of what this daemon does not have. They set their keys of the
// configuration, which are refused or ignored like those of a file, so that a command line that
// switches such a feature off, or sets one up that is off, still works. Help does not show them.
func (o *options) addAbsent() {
	shown := map[string]bool{}
	for _, l := range o.overlays {
		shown[l.flag] = true
	}
	o.bool("proxy-network", false, "enable proxy network enforcement for all builds", func(c *config.Config) *bool { return &c.ProxyNetwork })
	o.string("oci-worker-proxy-snapshotter-path", "", "address of proxy snapshotter socket (do not include 'unix://' prefix)", func(c *config.Config) *string { return &c.Workers.OCI.ProxySnapshotterPath })
	saveCacheDebug := o.flags.Bool("save-cache-debug", false, "enable saving cache debug info")
	o.overlay("save-cache-debug", "", func(*config.Config) error { return refuse("save-cache-debug", *saveCacheDebug) })
	o.addContainerd()
	for _, l := range o.overlays {
		if !shown[l.flag] {
			o.hide(l.flag)
		}
	}
}

func (o *options) addContainerd() {
	worker := func(c *config.Config) *config.Containerd { return &c.Workers.Containerd }
	o.string("containerd-worker-addr", "", "containerd socket", func(c *config.Config) *string { return &worker(c).Address })
	labels := o.flags.StringArray("containerd-worker-labels", nil, "user-specific annotation labels (com.example.foo=bar)")
	o.overlay("containerd-worker-labels", "", func(c *config.Config) error { return setLabels(&worker(c).Worker, *labels) })
	o.string("containerd-worker-namespace", "", "override containerd namespace", func(c *config.Config) *string { return &worker(c).Namespace })
	o.string("containerd-worker-runtime", "", "override containerd runtime", func(c *config.Config) *string { return &worker(c).Runtime.Name })
	o.strings("containerd-worker-platform", nil, "override supported platforms for worker", func(c *config.Config) *[]string { return &worker(c).Platforms })
	o.string("containerd-worker-snapshotter", "", "snapshotter name to use", func(c *config.Config) *string { return &worker(c).Snapshotter })
	o.string("containerd-worker-net", "", "worker network type (auto, bridge, cni or host)", func(c *config.Config) *string { return &worker(c).Mode })
	o.string("containerd-cni-config-path", "", "path of cni config file", func(c *config.Config) *string { return &worker(c).CNIConfigPath })
	o.string("containerd-cni-binary-dir", "", "path of cni binary files", func(c *config.Config) *string { return &worker(c).CNIBinaryPath })
	o.int("containerd-cni-pool-size", "size of cni network namespace pool", func(c *config.Config) *int { return &worker(c).CNIPoolSize })
	o.string("containerd-worker-apparmor-profile", "", "set the name of the apparmor profile applied to containers", func(c *config.Config) *string { return &worker(c).ApparmorProfile })
	o.bool("containerd-worker-selinux", false, "apply SELinux labels", func(c *config.Config) *bool { return &worker(c).SELinux })
	o.int("containerd-max-parallelism", "limit the number of parallel build steps that can run at the same time", func(c *config.Config) *int { return &worker(c).MaxParallelism })
	o.bool("containerd-worker-rootless", false, "enable rootless mode", func(c *config.Config) *bool { return ensure(&worker(c).Rootless) })
	o.bool("containerd-worker-gc", true, "enable automatic garbage collection on worker", func(c *config.Config) *bool { return ensure(&worker(c).GC.Enabled) })
	storage := o.flags.String("containerd-worker-gc-keepstorage", "", "amount of storage that GC keeps locally, format \"Reserved[,Free[,Maximum]]\" (MB)")
	o.overlay("containerd-worker-gc-keepstorage", "", func(c *config.Config) error { return setKeepStorage(&worker(c).GC, *storage) })
}

// refuse returns an error if a switch is on that this daemon cannot obey.
func refuse(flag string, on bool) error {
	if on {
		return fmt.Errorf("--%s is not supported", flag)
	}
	return nil
}
