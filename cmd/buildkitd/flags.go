package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

// Variables that stand for a flag that is not given.
const (
	logLevelEnv  = "BUILDKITD_LOG_LEVEL"
	debugAddrEnv = "BUILDKITD_DEBUGADDR"
)

// megabyte is the unit of --oci-worker-gc-keepstorage.
const megabyte = 1_000_000

// options are the flags. Those that stand for a key of the configuration file are laid over it
// where they are given.
type options struct {
	// configPath is empty for the usual place.
	configPath      string
	configStrict    bool
	rootless        bool
	shutdownTimeout time.Duration

	flags    *pflag.FlagSet
	overlays []overlay
}

type overlay struct {
	flag, env string
	set       func(*config.Config) error
}

// newOptions adds the flags of the daemon to flags.
func newOptions(flags *pflag.FlagSet, host config.Host) *options {
	o := &options{flags: flags}
	flags.SortFlags = false
	flags.StringVar(&o.configPath, "config", "", "path to config file (default \""+host.ConfigPath()+"\")")
	flags.BoolVar(&o.configStrict, "config-strict", false, "refuse a config file with unknown keys")
	flags.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 5*time.Second, "how long running builds may go on after SIGTERM")
	flags.BoolVar(&o.rootless, "rootless", host.Rootless, "set all the default options to be compatible with rootless containers")
	o.string("root", host.Root(), "path to state directory", func(c *config.Config) *string { return &c.Root })
	o.strings("addr", []string{host.Address()}, "listening address (socket or tcp)", func(c *config.Config) *[]string { return &c.GRPC.Addresses })
	o.addLog()
	o.addServer()
	o.addOCI()
	o.addAbsent()
	return o
}

func (o *options) addLog() {
	o.string("log-format", config.DefaultLogFormat, "log formatter: json or text", func(c *config.Config) *string { return &c.Log.Format })
	debug := o.flags.Bool("debug", false, "enable debug output in logs")
	trace := o.flags.Bool("trace", false, "enable trace output in logs (highly verbose, could affect performance)")
	o.hide("trace")
	o.overlay("debug", "", func(c *config.Config) error { return setVerbose(c, &c.Debug, *debug) })
	o.overlay("trace", "", func(c *config.Config) error { return setVerbose(c, &c.Trace, *trace) })
	// Last: a level that is given goes before the switches.
	level := o.flags.String("log-level", config.DefaultLogLevel, "set the log level [$"+logLevelEnv+"]")
	o.overlay("log-level", logLevelEnv, func(c *config.Config) error {
		c.Log.Level = *level
		return nil
	})
}

// setVerbose lays a switch over the level of the file.
func setVerbose(c *config.Config, field *bool, on bool) error {
	*field = on
	if on {
		c.Log.Level = ""
	}
	return nil
}

func (o *options) addServer() {
	group := o.flags.String("group", "", "group (name or gid) which will own all Unix socket listening addresses")
	o.overlay("group", "", func(c *config.Config) (err error) {
		c.GRPC.GID, err = lookupGroup(*group)
		return err
	})
	addr := o.flags.String("debugaddr", "", "debugging address (eg. 0.0.0.0:6060) [$"+debugAddrEnv+"]")
	o.overlay("debugaddr", debugAddrEnv, func(c *config.Config) error {
		c.GRPC.DebugAddress = *addr
		return nil
	})
	o.string("tlscert", "", "certificate file to use", func(c *config.Config) *string { return &c.GRPC.TLS.Cert })
	o.string("tlskey", "", "key file to use", func(c *config.Config) *string { return &c.GRPC.TLS.Key })
	o.string("tlscacert", "", "ca certificate to verify clients", func(c *config.Config) *string { return &c.GRPC.TLS.CA })
	o.strings("allow-insecure-entitlement", nil, "allows insecure entitlements e.g. network.host, security.insecure, device", func(c *config.Config) *[]string { return &c.Entitlements })
	o.bool("cdi-disabled", false, "disables support of the Container Device Interface (CDI)", func(c *config.Config) *bool { return &c.CDI.Disabled })
	o.strings("cdi-spec-dir", config.DefaultCDISpecDirs(), "list of directories to scan for CDI spec files", func(c *config.Config) *[]string { return &c.CDI.SpecDirs })
	o.string("otel-socket-path", "", "OTEL collector trace socket path", func(c *config.Config) *string { return &c.OTEL.SocketPath })
}

func (o *options) addOCI() {
	worker := func(c *config.Config) *config.OCI { return &c.Workers.OCI }
	o.switches("oci-worker", "enable oci workers (true/false/auto)", func(c *config.Config) *config.Switch { return &worker(c).Enabled })
	labels := o.flags.StringArray("oci-worker-labels", nil, "user-specific annotation labels (com.example.foo=bar)")
	o.overlay("oci-worker-labels", "", func(c *config.Config) error { return setLabels(&worker(c).Worker, *labels) })
	o.string("oci-worker-snapshotter", config.DefaultSnapshotter, "name of snapshotter (overlayfs, native)", func(c *config.Config) *string { return &worker(c).Snapshotter })
	o.strings("oci-worker-platform", nil, "override supported platforms for worker", func(c *config.Config) *[]string { return &worker(c).Platforms })
	o.string("oci-worker-net", config.DefaultNetworkMode, "worker network type (auto, bridge, cni or host)", func(c *config.Config) *string { return &worker(c).Mode })
	o.string("oci-cni-config-path", config.DefaultCNIConfigPath, "path of cni config file", func(c *config.Config) *string { return &worker(c).CNIConfigPath })
	o.string("oci-cni-binary-dir", config.DefaultCNIBinaryPath, "path of cni binary files", func(c *config.Config) *string { return &worker(c).CNIBinaryPath })
	o.int("oci-cni-pool-size", "size of cni network namespace pool", func(c *config.Config) *int { return &worker(c).CNIPoolSize })
	o.string("oci-worker-binary", "", "name of specified oci worker binary", func(c *config.Config) *string { return &worker(c).Binary })
	o.string("oci-worker-apparmor-profile", "", "set the name of the apparmor profile applied to containers", func(c *config.Config) *string { return &worker(c).ApparmorProfile })
	o.bool("oci-worker-selinux", false, "apply SELinux labels", func(c *config.Config) *bool { return &worker(c).SELinux })
	o.int("oci-max-parallelism", "limit the number of parallel build steps that can run at the same time", func(c *config.Config) *int { return &worker(c).MaxParallelism })
	o.bool("oci-worker-rootless", false, "enable rootless mode", func(c *config.Config) *bool { return ensure(&worker(c).Rootless) })
	o.bool("oci-worker-no-process-sandbox", false, "use the host PID namespace and procfs (WARNING: allows build containers to kill (and potentially ptrace) an arbitrary process in the host namespace)", func(c *config.Config) *bool { return &worker(c).NoProcessSandbox })
	o.bool("oci-worker-gc", true, "enable automatic garbage collection on worker", func(c *config.Config) *bool { return ensure(&worker(c).GC.Enabled) })
	storage := o.flags.String("oci-worker-gc-keepstorage", "", "amount of storage that GC keeps locally, format \"Reserved[,Free[,Maximum]]\" (MB)")
	o.overlay("oci-worker-gc-keepstorage", "", func(c *config.Config) error { return setKeepStorage(&worker(c).GC, *storage) })
	o.switches("containerd-worker", "enable containerd workers (true/false/auto)", func(c *config.Config) *config.Switch { return &c.Workers.Containerd.Enabled })
}

// apply lays what was given over cfg. A flag goes before its variable.
func (o *options) apply(cfg *config.Config, getenv func(string) string) error {
	for _, l := range o.overlays {
		if !o.flags.Changed(l.flag) {
			value := ""
			if l.env != "" {
				value = getenv(l.env)
			}
			if value == "" {
				continue
			}
			if err := o.flags.Set(l.flag, value); err != nil {
				return fmt.Errorf("$%s: %w", l.env, err)
			}
		}
		if err := l.set(cfg); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) overlay(flag, env string, set func(*config.Config) error) {
	o.overlays = append(o.overlays, overlay{flag: flag, env: env, set: set})
}

func (o *options) hide(flag string) { o.flags.Lookup(flag).Hidden = true }

func (o *options) string(name, def, usage string, field func(*config.Config) *string) {
	value := o.flags.String(name, def, usage)
	o.overlay(name, "", func(c *config.Config) error {
		*field(c) = *value
		return nil
	})
}

func (o *options) strings(name string, def []string, usage string, field func(*config.Config) *[]string) {
	value := o.flags.StringArray(name, def, usage)
	o.overlay(name, "", func(c *config.Config) error {
		*field(c) = *value
		return nil
	})
}

func (o *options) bool(name string, def bool, usage string, field func(*config.Config) *bool) {
	value := o.flags.Bool(name, def, usage)
	o.overlay(name, "", func(c *config.Config) error {
		*field(c) = *value
		return nil
	})
}

func (o *options) int(name, usage string, field func(*config.Config) *int) {
	value := o.flags.Int(name, 0, usage)
	o.overlay(name, "", func(c *config.Config) error {
		*field(c) = *value
		return nil
	})
}

func (o *options) switches(name, usage string, field func(*config.Config) *config.Switch) {
	value := o.flags.String(name, config.Auto.String(), usage)
	o.overlay(name, "", func(c *config.Config) error {
		if err := field(c).UnmarshalText([]byte(*value)); err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		return nil
	})
}

func ensure(p **bool) *bool {
	*p = new(bool)
	return *p
}

// lookupGroup finds a group by its name or number.
func lookupGroup(group string) (*int, error) {
	id := group
	if _, err := strconv.Atoi(group); err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return nil, err
		}
		id = g.Gid
	}
	gid, err := strconv.Atoi(id)
	if err != nil || gid < 0 {
		return nil, fmt.Errorf("invalid group %q", group)
	}
	return &gid, nil
}

// setLabels lays labels, each key=value, over those of the file.
func setLabels(worker *config.Worker, labels []string) error {
	if worker.Labels == nil {
		worker.Labels = map[string]string{}
	}
	for _, label := range labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return fmt.Errorf("invalid label %q: want key=value", label)
		}
		worker.Labels[key] = value
	}
	return nil
}

// setKeepStorage reads "Reserved[,Free[,Maximum]]" in MB.
func setKeepStorage(gc *config.GC, value string) error {
	fields := []**config.DiskSpace{&gc.ReservedSpace, &gc.MinFreeSpace, &gc.MaxUsedSpace}
	parts := strings.Split(value, ",")
	if len(parts) > len(fields) {
		return fmt.Errorf("invalid GC storage %q: want Reserved[,Free[,Maximum]]", value)
	}
	for i, part := range parts {
		if part == "" {
			continue
		}
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || n < 0 || n > 1<<62/megabyte {
			return fmt.Errorf("invalid GC storage %q: %q is no number of MB", value, part)
		}
		*fields[i] = &config.DiskSpace{Bytes: n * megabyte}
	}
	return nil
}
