package config

import (
	"path/filepath"

	"github.com/openbuildkit/buildkit/solver/history"
)

// Host is what the defaults depend on.
type Host struct {
	// Rootless is true for a daemon that is root of a user namespace only.
	Rootless bool
	Getenv   func(string) string
}

// ofUser tells whether the daemon belongs to an ordinary user, who has folders of his own.
func (h Host) ofUser() bool {
	user := h.Getenv("USER")
	return h.Rootless && user != "" && user != "root"
}

// The names below the folders of a host.
const (
	configFile  = "buildkitd.toml"
	socket      = "buildkitd.sock"
	traceSocket = "otel-grpc.sock"
)

// ConfigPath is where the configuration file is unless told otherwise.
func (h Host) ConfigPath() string {
	if !h.ofUser() {
		return "/etc/buildkit/" + configFile
	}
	return filepath.Join(h.userDir("XDG_CONFIG_HOME", ".config"), "buildkit", configFile)
}

// Root is where state is kept unless told otherwise.
func (h Host) Root() string {
	if !h.ofUser() {
		return "/var/lib/buildkit"
	}
	return filepath.Join(h.userDir("XDG_DATA_HOME", ".local/share"), "buildkit")
}

// Address is where the API is served unless told otherwise.
func (h Host) Address() string { return "unix://" + filepath.Join(h.runDir(), socket) }

// TraceSocket is where build steps send traces to unless told otherwise.
func (h Host) TraceSocket() string { return filepath.Join(h.runDir(), traceSocket) }

// runDir is where sockets are.
func (h Host) runDir() string {
	dir := h.Getenv("XDG_RUNTIME_DIR")
	if !h.ofUser() || dir == "" {
		return "/run/buildkit"
	}
	return filepath.Join(dir, "buildkit")
}

// userDir is a folder of the user, named by a variable or below the home folder.
func (h Host) userDir(env, below string) string {
	if dir := h.Getenv(env); dir != "" {
		return dir
	}
	return filepath.Join(h.Getenv("HOME"), below)
}

// Defaults of values that hosts do not change.
const (
	DefaultLogFormat              = "text"
	DefaultLogLevel               = "info"
	DefaultSnapshotter            = "auto"
	DefaultNetworkMode            = "auto"
	DefaultMaxRegistryConcurrency = 4
	DefaultCNIConfigPath          = "/etc/buildkit/cni.json"
	DefaultCNIBinaryPath          = "/opt/cni/bin"
	defaultBridgeName             = "buildkit0"
	defaultBridgeSubnet           = "10.10.0.0/16"
	defaultProvenanceEnvDir       = "/etc/buildkit/provenance.d"
)

// DefaultCDISpecDirs are the folders in which devices are described unless told otherwise.
func DefaultCDISpecDirs() []string {
	return []string{"/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"}
}

// SetDefaults fills in what neither file nor command line say.
func (c *Config) SetDefaults(h Host) {
	setDefault(&c.Root, h.Root())
	if len(c.GRPC.Addresses) == 0 {
		c.GRPC.Addresses = []string{h.Address()}
	}
	setDefault(&c.OTEL.SocketPath, h.TraceSocket())
	setDefault(&c.Log.Format, DefaultLogFormat)
	if c.Log.Level == "" {
		c.Log.Level = DefaultLogLevel
		if c.Debug {
			c.Log.Level = "debug"
		}
		if c.Trace {
			c.Log.Level = "trace"
		}
	}
	setDefault(&c.ProvenanceEnvDir, defaultProvenanceEnvDir)
	if c.System.MaxRegistryConcurrency == nil {
		n := DefaultMaxRegistryConcurrency
		c.System.MaxRegistryConcurrency = &n
	}
	if len(c.CDI.SpecDirs) == 0 {
		c.CDI.SpecDirs = DefaultCDISpecDirs()
	}
	if c.History.MaxAge == nil {
		c.History.MaxAge = &Duration{history.DefaultMaxAge}
	}
	if c.History.MaxEntries == nil {
		n := int64(history.DefaultMaxEntries)
		c.History.MaxEntries = &n
	}
	oci := &c.Workers.OCI
	setDefault(&oci.Snapshotter, DefaultSnapshotter)
	setDefault(&oci.Mode, DefaultNetworkMode)
	setDefault(&oci.CNIConfigPath, DefaultCNIConfigPath)
	setDefault(&oci.CNIBinaryPath, DefaultCNIBinaryPath)
	setDefault(&oci.BridgeName, defaultBridgeName)
	setDefault(&oci.BridgeSubnet, defaultBridgeSubnet)
	if oci.Rootless == nil {
		oci.Rootless = &h.Rootless
	}
}

func setDefault(value *string, def string) {
	if *value == "" {
		*value = def
	}
}
