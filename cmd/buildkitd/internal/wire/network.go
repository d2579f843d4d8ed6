package wire

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/log"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/worker/network"
)

// bridgeEnv makes the mode auto a bridge.
const bridgeEnv = "BUILDKIT_NETWORK_BRIDGE_AUTO"

// The network modes of a worker. Labels have the two that auto and bridge come down to.
const (
	netAuto   = "auto"
	netHost   = "host"
	netCNI    = "cni"
	netBridge = "bridge"
)

// newNetwork returns the network of steps that ask for none and its mode.
func newNetwork(ctx context.Context, cfg config.Network, rootless bool, stateDir string) (network.Provider, string, error) {
	mode := cfg.Mode
	if mode == netAuto {
		mode = chooseNetwork(ctx, cfg, rootless)
	}
	conf := network.CNIConfig{
		StateDir: stateDir,
		BinDirs:  []string{cfg.CNIBinaryPath},
		PoolSize: cfg.CNIPoolSize,
	}
	switch mode {
	case netHost:
		return network.Host(), netHost, nil
	case netCNI:
		conf.ConfigFile = cfg.CNIConfigPath
	case netBridge:
		bridge, err := network.BridgeConfig(cfg.BridgeName, cfg.BridgeSubnet)
		if err != nil {
			return nil, "", err
		}
		conf.Config = bridge
	default:
		return nil, "", fmt.Errorf("invalid network mode: %q", mode)
	}
	provider, err := network.NewCNI(ctx, conf)
	if err != nil {
		return nil, "", err
	}
	return provider, netCNI, nil
}

// chooseNetwork is what auto means.
func chooseNetwork(ctx context.Context, cfg config.Network, rootless bool) string {
	if rootless {
		return netHost
	}
	if os.Getenv(bridgeEnv) == "1" {
		return netBridge
	}
	if _, err := os.Stat(cfg.CNIConfigPath); err == nil {
		return netCNI
	}
	log.G(ctx).Warnf("there is no CNI configuration in %s: steps use the network of the host", cfg.CNIConfigPath)
	return netHost
}
