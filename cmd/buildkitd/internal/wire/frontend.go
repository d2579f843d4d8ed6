package wire

import (
	"cmp"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/frontend/dockerfile"
	"github.com/openbuildkit/buildkit/frontend/image"
)

// newFrontends returns those that are not switched off.
func newFrontends(cfg config.Frontends) frontend.Registry {
	registry := frontend.Registry{}
	if dockerfileVersion(cfg) != "" {
		registry["dockerfile.v0"] = dockerfile.Build
	}
	if on := cfg.Gateway.Enabled; on == nil || *on {
		registry[image.Name] = image.New(imageConfig(cfg.Gateway, machineMemory())).Build
	}
	return registry
}

// dockerfileVersion returns the version of the language of the built-in frontend, empty if that is
// switched off.
func dockerfileVersion(cfg config.Frontends) string {
	if on := cfg.Dockerfile.Enabled; on != nil && !*on {
		return ""
	}
	return dockerfile.Version
}

// imageConfig says how frontends that are images are run on a machine with memory in bytes.
func imageConfig(cfg config.GatewayFrontend, memory int64) image.Config {
	limit := config.DiskSpace{Percent: 50}
	if cfg.MaxMemory != nil {
		limit = *cfg.MaxMemory
	}
	return image.Config{
		AllowedRepositories: cfg.AllowedRepositories,
		MaxMemory:           limit.OfMemory(memory),
		IdleTimeout:         cfg.IdleTimeout.Duration,
	}
}

// machineMemory is what the daemon and all that it starts can use, in bytes: what the machine has,
// or less if the daemon is in a container with a limit. 0 if it cannot be had.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	memory := int64(info.Totalram) * int64(cmp.Or(info.Unit, 1))
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 {
			memory = min(memory, limit)
		}
	}
	return memory
}
