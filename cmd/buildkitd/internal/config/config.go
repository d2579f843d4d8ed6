// Package config is the daemon's configuration: the keys of buildkitd.toml, their values and
// their defaults.
//
// Load reads a file into a Config; the command line then sets what it was given, and SetDefaults
// fills in the rest. Every key is decoded, also of what this build of the daemon does not have,
// so that a misspelt one stands out: Load returns the keys that it does not know, each with the
// nearest one that it does. The package touches no state of the daemon and makes no objects; that
// is package wire.
package config

// Config is a buildkitd.toml. Pointers are nil where the file says nothing and the default is not
// the zero value.
type Config struct {
	Root  string `toml:"root"`
	Debug bool   `toml:"debug"`
	Trace bool   `toml:"trace"`
	// Entitlements are those that builds may be granted.
	Entitlements     []string `toml:"insecure-entitlements"`
	ProxyNetwork     bool     `toml:"proxyNetwork"`
	ProvenanceEnvDir string   `toml:"provenanceEnvDir"`

	Log        Log                 `toml:"log"`
	GRPC       GRPC                `toml:"grpc"`
	OTEL       OTEL                `toml:"otel"`
	CDI        CDI                 `toml:"cdi"`
	DNS        DNS                 `toml:"dns"`
	History    History             `toml:"history"`
	System     System              `toml:"system"`
	Frontends  Frontends           `toml:"frontend"`
	Cache      Cache               `toml:"cache"`
	Registries map[string]Registry `toml:"registry"`
	Workers    Workers             `toml:"worker"`
}

// Log is how the daemon logs.
type Log struct {
	// Format is text or json.
	Format string `toml:"format"`
	// Level is a level of logrus.
	Level string `toml:"level"`
}

// GRPC is where and how the API is served.
type GRPC struct {
	Addresses    []string `toml:"address"`
	DebugAddress string   `toml:"debugAddress"`
	// UID and GID own the unix sockets; nil is the daemon's own.
	UID                *int   `toml:"uid"`
	GID                *int   `toml:"gid"`
	SecurityDescriptor string `toml:"securityDescriptor"`
	TLS                TLS    `toml:"tls"`
}

// TLS names PEM files. With a CA clients have to show a certificate that it signed.
type TLS struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	CA   string `toml:"ca"`
}

// OTEL is where traces of build steps are received.
type OTEL struct {
	SocketPath string `toml:"socketPath"`
}

// CDI is about devices of the host that steps may ask for.
type CDI struct {
	Disabled bool `toml:"disabled"`
	// SpecDirs are the folders with descriptions of devices.
	SpecDirs []string `toml:"specDirs"`
	// AutoAllowed are devices that need no grant.
	AutoAllowed []string `toml:"autoAllowed"`
}

// DNS replaces parts of the resolv.conf that build steps see.
type DNS struct {
	Nameservers   []string `toml:"nameservers"`
	Options       []string `toml:"options"`
	SearchDomains []string `toml:"searchDomains"`
}

// History bounds the records of builds: one goes when it is past both.
type History struct {
	MaxAge     *Duration `toml:"maxAge"`
	MaxEntries *int64    `toml:"maxEntries"`
}

// System is about the machine and what the daemon asks of others.
type System struct {
	PlatformsCacheMaxAge *Duration `toml:"platformsCacheMaxAge"`
	// MaxRegistryConcurrency bounds the requests to one registry at a time.
	MaxRegistryConcurrency *int `toml:"maxRegistryConcurrency"`
}

// Frontends switches frontends on and off.
type Frontends struct {
	Dockerfile DockerfileFrontend `toml:"dockerfile.v0"`
	Gateway    GatewayFrontend    `toml:"gateway.v0"`
}

// DockerfileFrontend is the built-in frontend dockerfile.v0.
type DockerfileFrontend struct {
	Enabled *bool `toml:"enabled"`
}

// GatewayFrontend runs frontends that are images.
type GatewayFrontend struct {
	Enabled *bool `toml:"enabled"`
	// AllowedRepositories, if any, are the only ones.
	AllowedRepositories []string `toml:"allowedRepositories"`
	// MaxMemory is what one frontend may use, a share being of the machine's memory; 0 is all
	// there is, nil half of it.
	MaxMemory *DiskSpace `toml:"maxMemory"`
	// IdleTimeout is how long a frontend may ask for nothing before it is given up.
	IdleTimeout Duration `toml:"idleTimeout"`
}

// Cache is about remote caches.
type Cache struct {
	GHA GHA `toml:"gha"`
}

// GHA is the cache of GitHub Actions.
type GHA struct {
	Sign   GHASign   `toml:"sign"`
	Verify GHAVerify `toml:"verify"`
}

// GHASign is the command that signs what is cached.
type GHASign struct {
	Command []string `toml:"command"`
}

// GHAVerify is what is asked of signatures. Policy holds thresholds and fields of certificates.
type GHAVerify struct {
	Required bool           `toml:"required"`
	Policy   map[string]any `toml:"policy"`
}

// Registry is how the registry of a host is spoken to.
type Registry struct {
	Mirrors       []string  `toml:"mirrors"`
	PlainHTTP     *bool     `toml:"http"`
	Insecure      *bool     `toml:"insecure"`
	CA            []string  `toml:"ca"`
	KeyPairs      []KeyPair `toml:"keypair"`
	TLSConfigDirs []string  `toml:"tlsconfigdir"`
}

// KeyPair names the PEM files of a client certificate.
type KeyPair struct {
	Key  string `toml:"key"`
	Cert string `toml:"cert"`
}

// Workers are the kinds of workers.
type Workers struct {
	OCI        OCI        `toml:"oci"`
	Containerd Containerd `toml:"containerd"`
}

// Worker is what workers of every kind have.
type Worker struct {
	Enabled             Switch            `toml:"enabled"`
	Labels              map[string]string `toml:"labels"`
	Platforms           []string          `toml:"platforms"`
	Snapshotter         string            `toml:"snapshotter"`
	Rootless            *bool             `toml:"rootless"`
	ApparmorProfile     string            `toml:"apparmor-profile"`
	SELinux             bool              `toml:"selinux"`
	MaxParallelism      int               `toml:"max-parallelism"`
	DefaultCgroupParent string            `toml:"defaultCgroupParent"`
	Network
	GC
}

// Network is what build steps without a network of their own choice get.
type Network struct {
	Mode          string `toml:"networkMode"`
	CNIConfigPath string `toml:"cniConfigPath"`
	CNIBinaryPath string `toml:"cniBinaryPath"`
	CNIPoolSize   int    `toml:"cniPoolSize"`
	BridgeName    string `toml:"bridgeName"`
	BridgeSubnet  string `toml:"bridgeSubnet"`
}

// GC is what is kept of what builds leave behind.
type GC struct {
	// Enabled is on if nil.
	Enabled *bool `toml:"gc"`
	// KeepStorage is the old name of ReservedSpace.
	KeepStorage   *DiskSpace `toml:"gckeepstorage"`
	ReservedSpace *DiskSpace `toml:"reservedSpace"`
	MaxUsedSpace  *DiskSpace `toml:"maxUsedSpace"`
	MinFreeSpace  *DiskSpace `toml:"minFreeSpace"`
	// Policies replace the default ones.
	Policies []GCPolicy `toml:"gcpolicy"`
}

// GCPolicy is one rule of the collector.
type GCPolicy struct {
	All          bool     `toml:"all"`
	Filters      []string `toml:"filters"`
	KeepDuration Duration `toml:"keepDuration"`
	// KeepBytes is the old name of ReservedSpace.
	KeepBytes     DiskSpace `toml:"keepBytes"`
	ReservedSpace DiskSpace `toml:"reservedSpace"`
	MaxUsedSpace  DiskSpace `toml:"maxUsedSpace"`
	MinFreeSpace  DiskSpace `toml:"minFreeSpace"`
}

// OCI is the worker that drives an OCI runtime itself.
type OCI struct {
	Worker
	NoProcessSandbox     bool           `toml:"noProcessSandbox"`
	UserRemapUnsupported string         `toml:"userRemapUnsupported"`
	Binary               string         `toml:"binary"`
	ProxySnapshotterPath string         `toml:"proxySnapshotterPath"`
	StargzSnapshotter    map[string]any `toml:"stargzSnapshotter"`
}

// Containerd is the worker that asks a containerd.
type Containerd struct {
	Worker
	Address   string  `toml:"address"`
	Namespace string  `toml:"namespace"`
	Runtime   Runtime `toml:"runtime"`
}

// Runtime is a runtime of containerd.
type Runtime struct {
	Name    string         `toml:"name"`
	Path    string         `toml:"path"`
	Options map[string]any `toml:"options"`
}
