package wire

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/containerd/containerd/v2/pkg/filters"

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
	if id := cfg.GRPC.UID; id != nil && *id < 0 {
		return fmt.Errorf("invalid grpc uid %d", *id)
	}
	if id := cfg.GRPC.GID; id != nil && *id < 0 {
		return fmt.Errorf("invalid grpc gid %d", *id)
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
	if _, err := netip.ParsePrefix(oci.BridgeSubnet); err != nil {
		return fmt.Errorf("invalid bridgeSubnet %q: want a subnet such as 10.10.0.0/16", oci.BridgeSubnet)
	}
	for _, p := range oci.Policies {
		if _, err := filters.ParseAll(p.Filters...); err != nil {
			return fmt.Errorf("invalid filters %q of a gcpolicy: %w", p.Filters, err)
		}
		if p.KeepDuration.Duration < 0 {
			return fmt.Errorf("invalid keepDuration %v of a gcpolicy", p.KeepDuration.Duration)
		}
	}
	return nil
}
