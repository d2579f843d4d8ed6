package wire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/continuity"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/api/entitlement"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cache/checksum"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/worker"
	"github.com/openbuildkit/buildkit/worker/device"
	"github.com/openbuildkit/buildkit/worker/network"
	"github.com/openbuildkit/buildkit/worker/platform"
	"github.com/openbuildkit/buildkit/worker/runc"
	"github.com/openbuildkit/buildkit/worker/source"
	"github.com/openbuildkit/buildkit/worker/source/git"
	"github.com/openbuildkit/buildkit/worker/source/http"
	"github.com/openbuildkit/buildkit/worker/source/image"
	"github.com/openbuildkit/buildkit/worker/source/imageblob"
	"github.com/openbuildkit/buildkit/worker/source/local"
	"github.com/openbuildkit/buildkit/worker/source/ocilayout"
	"github.com/openbuildkit/buildkit/worker/spec"
)

// newWorker makes the only worker, the one that drives an OCI runtime, with its cache.
func (d *daemon) newWorker(ctx context.Context, cfg *config.Config, st *state, sessions *session.Manager, registries *registry.Client) (*worker.Worker, error) {
	oci := &cfg.Workers.OCI
	if err := findRuntime(ctx, oci); err != nil {
		return nil, err
	}
	id, err := workerID(st.sub("workerid"))
	if err != nil {
		return nil, fmt.Errorf("worker id: %w", err)
	}
	platforms, err := newPlatforms(cfg, st.dir)
	if err != nil {
		return nil, err
	}
	net, mode, err := newNetwork(ctx, oci.Network, *oci.Rootless, st.sub("net"))
	if err != nil {
		return nil, err
	}
	d.onClose(net.Close)
	if cni, ok := net.(*network.CNI); ok {
		d.background = append(d.background, cni.Run)
	}
	devices, err := newDevices(cfg.CDI)
	if err != nil {
		return nil, err
	}
	rt, err := runc.NewRuntime(ctx, runc.RuntimeConfig{
		Root:             st.sub("runc"),
		Binary:           oci.Binary,
		CgroupParent:     oci.DefaultCgroupParent,
		Network:          network.Providers{Default: net},
		DNS:              spec.DNS(cfg.DNS),
		Rootless:         *oci.Rootless,
		NoProcessSandbox: oci.NoProcessSandbox,
		AppArmorProfile:  oci.ApparmorProfile,
		SELinux:          oci.SELinux,
		Devices:          devices,
	})
	if err != nil {
		return nil, err
	}
	if err := rt.Recover(ctx); err != nil {
		return nil, fmt.Errorf("remove what an earlier daemon left: %w", err)
	}
	trees, err := cache.Open(ctx, cache.Config{Root: st.dir, Snapshotter: oci.Snapshotter})
	if err != nil {
		return nil, err
	}
	d.onClose(trees.Close)
	log.G(ctx).Infof("worker %s: snapshotter %s (%s), runtime %s, network %s", id, trees.SnapshotterName(), trees.SnapshotterReason(), rt.Binary(), mode)
	// What jobs of an earlier daemon left there holds credentials.
	jobs := st.sub("git")
	if err := os.RemoveAll(jobs); err != nil {
		return nil, err
	}
	checksums := checksum.New()
	blobs := imageblob.New(imageblob.Config{Cache: trees, Registry: registries, Sessions: sessions})
	return &worker.Worker{
		ID:        id,
		Labels:    workerLabels(oci, trees.SnapshotterName(), mode),
		Platforms: platforms,
		Cache:     trees,
		Checksums: checksums,
		Sources: source.NewRegistry(
			image.New(image.Config{Cache: trees, Registry: registries}),
			ocilayout.New(ocilayout.Config{Cache: trees, Sessions: sessions}),
			blobs,
			local.New(local.Config{Cache: trees, Sessions: sessions, Checksums: checksums}),
			git.New(git.Config{Cache: trees, Sessions: sessions, Dir: jobs, Blobs: blobs, Environ: os.Environ()}),
			http.New(http.Config{Cache: trees, Sessions: sessions, UserAgent: "buildkit/" + version.Version}),
		),
		Runtime:        rt,
		Devices:        devices,
		SecretDir:      rt.SecretDir(),
		MaxParallelism: oci.MaxParallelism,
		CgroupParent:   oci.DefaultCgroupParent,
	}, nil
}

// newDevices returns the devices that steps may ask for, nil if they may not.
func newDevices(cfg config.CDI) (*device.Registry, error) {
	if cfg.Disabled {
		return nil, nil
	}
	return device.New(device.Config{SpecDirs: cfg.SpecDirs, AutoAllowed: cfg.AutoAllowed})
}

// entitlements are what builds may be granted. Devices are described by the administrator, so those
// that are may be.
func entitlements(cfg *config.Config) []string {
	if cfg.CDI.Disabled {
		return cfg.Entitlements
	}
	return append(slices.Clone(cfg.Entitlements), entitlement.Device)
}

// findRuntime makes sure that there is an OCI runtime, if there is to be a worker at all.
func findRuntime(ctx context.Context, oci *config.OCI) error {
	errNone := errors.New("no worker found, rebuild the buildkit daemon?")
	if oci.Enabled == config.Off {
		return errNone
	}
	_, err := runc.FindBinary(oci.Binary)
	if errors.Is(err, runc.ErrNoRuntime) && oci.Enabled == config.Auto {
		log.G(ctx).Warn("skipping oci worker, as runc does not exist")
		return errNone
	}
	return err
}

// workerID returns the id that the state has had from its beginning.
func workerID(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) > 0 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	const length = 25
	id := strings.ToLower(rand.Text()[:length])
	return id, continuity.AtomicWriteFile(path, []byte(id+"\n"), 0o600)
}

// workerLabels are those of the configuration and those that describe the worker, which win.
func workerLabels(oci *config.OCI, snapshotter, network string) map[string]string {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	process := "sandbox"
	if oci.NoProcessSandbox {
		process = "no-sandbox"
	}
	own := map[string]string{
		"executor":         "oci",
		"snapshotter":      snapshotter,
		"hostname":         hostname,
		"network":          network,
		"oci.process-mode": process,
		"selinux.enabled":  strconv.FormatBool(oci.SELinux),
	}
	if oci.ApparmorProfile != "" {
		own["apparmor.profile"] = oci.ApparmorProfile
	}
	labels := maps.Clone(oci.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for key, value := range own {
		labels[worker.LabelPrefix+key] = value
	}
	return labels
}

// newPlatforms returns the set of the configuration, or what this machine runs.
func newPlatforms(cfg *config.Config, dir string) (platform.Set, error) {
	fixed, err := platform.Parse(cfg.Workers.OCI.Platforms)
	if err != nil {
		return nil, fmt.Errorf("platforms of the worker: %w", err)
	}
	conf := platform.Config{Fixed: fixed, Dir: dir}
	if age := cfg.System.PlatformsCacheMaxAge; age != nil {
		conf.MaxAge = age.Duration
	}
	return platform.NewHost(conf), nil
}

// diskSize returns the size of the file system that dir is on in bytes, 0 if it cannot be had.
func diskSize(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize
}
