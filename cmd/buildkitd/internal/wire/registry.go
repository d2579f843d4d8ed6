package wire

import (
	"github.com/openbuildkit/buildkit/cache/blob/registry"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
	"github.com/openbuildkit/buildkit/session"
)

func newRegistry(cfg *config.Config, sessions *session.Manager) *registry.Client {
	hosts := make(map[string]registry.HostConfig, len(cfg.Registries))
	for name, r := range cfg.Registries {
		host := registry.HostConfig{
			Mirrors:       r.Mirrors,
			PlainHTTP:     r.PlainHTTP,
			Insecure:      r.Insecure != nil && *r.Insecure,
			CAs:           r.CA,
			TLSConfigDirs: r.TLSConfigDirs,
		}
		for _, pair := range r.KeyPairs {
			host.KeyPairs = append(host.KeyPairs, registry.KeyPair{Key: pair.Key, Certificate: pair.Cert})
		}
		hosts[name] = host
	}
	return registry.New(registry.Config{
		Hosts:          hosts,
		Sessions:       registry.FromManager(sessions),
		MaxConcurrency: *cfg.System.MaxRegistryConcurrency,
		UserAgent:      "buildkit/" + version.Version,
	})
}
