package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/openbuildkit/buildkit/api/entitlement"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/snapshot"
)

// check finds what is wrong with a configuration whatever the machine is like, and what asks for
// something that is not there and must not be ignored.
func check(cfg *config.Config) error {
	for _, e := range cfg.Entitlements {
		if !slices.Contains([]string{entitlement.NetworkHost, entitlement.SecurityInsecure, entitlement.Device}, e) {
			return fmt.Errorf("invalid entitlement : %s", e)
		}
	}
	if n := *cfg.System.MaxRegistryConcurrency; n <= 0 {
		return fmt.Errorf("invalid maxRegistryConcurrency %d: want more than 0", n)
	}
	if n := *cfg.History.MaxEntries; n < 0 || n > math.MaxInt32 {
		return fmt.Errorf("invalid history maxEntries %d", n)
	}
	if cfg.ProxyNetwork {
		return errors.New("proxyNetwork is not supported")
	}
	if cfg.Workers.Containerd.Enabled == config.On {
		return errors.New("the containerd worker is not supported")
	}
	return checkOCI(&cfg.Workers.OCI)
}

func checkOCI(oci *config.OCI) error {
	if !slices.Contains([]string{snapshot.Auto, snapshot.Overlay, snapshot.Native}, oci.Snapshotter) {
		return fmt.Errorf("unknown snapshotter name: %q", oci.Snapshotter)
	}
	if oci.ProxySnapshotterPath != "" {
		return errors.New("proxy snapshotters are not supported")
	}
	if oci.UserRemapUnsupported != "" {
		return errors.New("user remapping is not supported")
	}
	if oci.NoProcessSandbox && !*oci.Rootless {
		return errors.New("can't enable NoProcessSandbox without Rootless")
	}
	if oci.MaxParallelism < 0 {
		return fmt.Errorf("invalid max-parallelism %d", oci.MaxParallelism)
	}
	return nil
}
