// Package registry is an OCI registry as a remote blob store: names are resolved to digests,
// manifests and configs are read whole, layers are offered as blob sources. It is the one place
// in the daemon that speaks to registries, so the only place with mirrors, TLS settings,
// credentials, retries and limits.
//
// A Client is made once per daemon from the configuration. A Repository is one repository on
// behalf of one build: it holds the sessions that may be asked for credentials. Credentials and
// the tokens made from them are kept per session and are never used for another's request; they
// appear in no error and no log.
//
// What a registry sends is hostile until its digest fits: manifests have a size limit, redirects
// an end, a body that is longer than its descriptor is an error. The package parses no manifest
// and decides nothing about platforms: that is the image source. The protocol itself is
// containerd's remotes/docker.
package registry

import (
	"net/http"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	dockerauth "github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"golang.org/x/sync/semaphore"

	"github.com/openbuildkit/buildkit/session/auth"
)

// Config is how registries are reached. The zero value works: https, anonymous, no mirrors.
type Config struct {
	// Hosts is the configuration of registries by host name, with the port if there is one, as
	// in an image reference. Mirrors have entries of their own.
	Hosts map[string]HostConfig
	// Sessions gives access to the clients' credentials; nil means that all is anonymous.
	Sessions Sessions
	// MaxConcurrency is how many blobs of one registry are transferred at once; 4 if zero.
	MaxConcurrency int
	// UserAgent is sent with every request; "buildkit" if empty.
	UserAgent string
}

const (
	defaultConcurrency = 4
	// attempts is how often a request is made before its failure is final, with waits of about
	// 0.2 + 0.4 + 0.8 + 1.6 = 3 s in between.
	attempts  = 5
	firstWait = 200 * time.Millisecond
	// maxWait is the longest wait that a registry may ask for. One that asks for more has a rate
	// limit that no build should wait for.
	maxWait = 30 * time.Second
	// stallTime is how long a body may stay silent before its request is made again.
	stallTime = 60 * time.Second
	// commitTime is how long a registry may take to store an upload after its last byte.
	commitTime = 10 * time.Minute
)

// Client speaks to registries. It may be used concurrently.
type Client struct {
	cfg    Config
	header http.Header
	grants grants
	// salt distinguishes this client's runs in the token-authority handshake.
	salt []byte

	mu         sync.Mutex
	transports map[transportKey]*transports
	limits     map[string]*semaphore.Weighted
	// sending is held, by repository and digest, by who sends a blob.
	sending turns
	// listing is held, by registry, by who changes a list of referrers.
	listing map[string]*semaphore.Weighted
	// bench holds mirrors that failed, until they are asked again.
	bench map[string]time.Time
	// challenges are what hosts ask for, by scheme and host, without scopes.
	challenges map[string]dockerauth.Challenge
}

// New returns a client. Files that the configuration names are read when a registry is first
// used.
func New(cfg Config) *Client {
	if cfg.MaxConcurrency <= 0 {
		cfg.MaxConcurrency = defaultConcurrency
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "buildkit"
	}
	return &Client{
		cfg:        cfg,
		header:     http.Header{"User-Agent": {cfg.UserAgent}},
		salt:       auth.Nonce(),
		transports: map[transportKey]*transports{},
		limits:     map[string]*semaphore.Weighted{},
		listing:    map[string]*semaphore.Weighted{},
		bench:      map[string]time.Time{},
		challenges: map[string]dockerauth.Challenge{},
	}
}

// CloseIdle closes connections that nobody uses.
func (c *Client) CloseIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.base.CloseIdleConnections()
		t.slow.CloseIdleConnections()
	}
}

// limit returns the semaphore of a registry.
func (c *Client) limit(host string) *semaphore.Weighted {
	return c.semaphore(c.limits, host, c.cfg.MaxConcurrency)
}

// semaphore returns the semaphore of a registry in one of the client's maps.
func (c *Client) semaphore(of map[string]*semaphore.Weighted, host string, size int) *semaphore.Weighted {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := of[host]
	if s == nil {
		s = semaphore.NewWeighted(int64(size))
		of[host] = s
	}
	return s
}

// defaultHost is where a registry is served, given its name in references.
func defaultHost(name string) string {
	if name == "docker.io" {
		return "registry-1.docker.io"
	}
	return name
}

const (
	pullOnly = docker.HostCapabilityPull | docker.HostCapabilityResolve
	fullUse  = pullOnly | docker.HostCapabilityPush | docker.HostCapabilityReferrers
)
