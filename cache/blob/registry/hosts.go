package registry

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
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

// host is one place where a repository is reached on behalf of one request.
type host struct {
	docker.RegistryHost
	auth *authorizer
	// resolver reaches this host only.
	resolver remotes.Resolver
	// uploads sends bodies that cannot be sent twice by whoever repeats requests.
	uploads *http.Client
	mirror  bool
	// outside, if not empty, is the URL that a foreign layer is read from in place of the host.
	outside string
}

// hosts returns the hosts of the registry called name for a request of the sessions; the
// registry itself is the last.
func (c *Client) hosts(name string, sessions session.Group, o options) ([]*host, error) {
	var hosts []*host
	for _, t := range c.targets(name) {
		h, err := c.host(t, t.config == name && o.insecure, sessions)
		if err != nil {
			return nil, err
		}
		h.mirror = t.caps == pullOnly
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func (c *Client) host(t target, insecure bool, sessions session.Group) (*host, error) {
	cfg := c.cfg.Hosts[t.config]
	cfg.Insecure = cfg.Insecure || insecure
	scheme, fallback, err := cfg.scheme(t.host)
	if err != nil {
		return nil, err
	}
	tr, err := c.transport(t.config, cfg)
	if err != nil {
		return nil, err
	}
	a := &authorizer{
		client:   c,
		host:     t.host,
		scheme:   scheme,
		lax:      scheme == "http" || fallback,
		sessions: sessions,
		http:     &http.Client{Transport: tr.token()},
	}
	h := &host{
		RegistryHost: docker.RegistryHost{
			Client:       &http.Client{Transport: tr.registry(fallback, t.caps == pullOnly), CheckRedirect: a.redirect},
			Authorizer:   a,
			Host:         t.host,
			Scheme:       scheme,
			Path:         t.path,
			Capabilities: t.caps,
		},
		auth:    a,
		uploads: &http.Client{Transport: tr.uploads(fallback), CheckRedirect: a.redirect},
	}
	h.resolver = docker.NewResolver(docker.ResolverOptions{
		Headers: c.header,
		Hosts:   func(string) ([]docker.RegistryHost, error) { return []docker.RegistryHost{h.RegistryHost}, nil },
	})
	return h, nil
}
