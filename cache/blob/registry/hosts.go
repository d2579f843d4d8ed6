package registry

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/openbuildkit/buildkit/session"
)

// HostConfig is the configuration of one registry host.
type HostConfig struct {
	// Mirrors are asked before the registry itself, in order, for pulls only. Each is
	// host[:port][/path]; the path comes after /v2.
	Mirrors []string
	// PlainHTTP uses http. Unset, it is true for localhost and loopback addresses.
	PlainHTTP *bool
	// Insecure takes any certificate, and falls back to http where no TLS is spoken.
	Insecure bool
	// CAs are files with certificates that are trusted besides those of the system.
	CAs []string
	// KeyPairs are client certificates.
	KeyPairs []KeyPair
	// TLSConfigDirs are folders with *.crt (CAs) and *.cert with *.key (key pairs). Those that
	// cannot be read are ignored.
	TLSConfigDirs []string
}

// KeyPair names the PEM files of a client certificate.
type KeyPair struct {
	Key, Certificate string
}

// scheme returns how the host is reached, and whether http is tried where TLS is not spoken.
func (h HostConfig) scheme(host string) (scheme string, fallback bool, err error) {
	switch {
	case h.Insecure:
		return "https", true, nil
	case h.PlainHTTP != nil:
		if *h.PlainHTTP {
			return "http", false, nil
		}
		return "https", false, nil
	}
	local, err := docker.MatchLocalhost(host)
	if err != nil {
		return "", false, fmt.Errorf("registry host %q: %w", host, err)
	}
	if local {
		return "http", false, nil
	}
	return "https", false, nil
}

// target is one place where a registry can be reached.
type target struct {
	// config is the name under which the host is configured, host the one it is dialed by.
	config, host, path string
	caps               docker.HostCapabilities
}

// targets returns where the registry called name can be reached, mirrors first.
func (c *Client) targets(name string) []target {
	var all []target
	for _, mirror := range c.cfg.Hosts[name].Mirrors {
		host, path, _ := strings.Cut(mirror, "/")
		t := target{config: host, host: defaultHost(host), path: "/v2", caps: pullOnly}
		if path = strings.Trim(path, "/"); path != "" {
			t.path += "/" + path
		}
		all = append(all, t)
	}
	return append(all, target{config: name, host: defaultHost(name), path: "/v2", caps: fullUse})
}

// registryHosts returns the hosts of the registry called name for a request of the sessions.
func (c *Client) registryHosts(name string, sessions session.Group, o options) ([]docker.RegistryHost, error) {
	var hosts []docker.RegistryHost
	for _, t := range c.targets(name) {
		cfg := c.cfg.Hosts[t.config]
		if t.config == name && o.insecure {
			cfg.Insecure = true
		}
		scheme, fallback, err := cfg.scheme(t.host)
		if err != nil {
			return nil, err
		}
		tr, err := c.transport(t.config, cfg)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, docker.RegistryHost{
			Client: &http.Client{Transport: tr.registry(fallback)},
			Authorizer: &authorizer{
				client:   c,
				host:     t.host,
				scheme:   scheme,
				lax:      scheme == "http" || fallback,
				sessions: sessions,
				http:     &http.Client{Transport: tr.token()},
			},
			Host:         t.host,
			Scheme:       scheme,
			Path:         t.path,
			Capabilities: t.caps,
		})
	}
	return hosts, nil
}
