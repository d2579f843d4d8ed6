package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/log"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
)

// parse returns what the daemon would be run with.
func parse(t *testing.T, env map[string]string, args ...string) (*config.Config, *options, error) {
	t.Helper()
	level := log.GetLevel()
	t.Cleanup(func() { require.NoError(t, log.SetLevel(level)) })
	var cfg *config.Config
	var opts *options
	cmd := newCommand(args, func(k string) string { return env[k] }, func(_ context.Context, c *config.Config, o *options) error {
		cfg, opts = c, o
		return nil
	})
	err := cmd.ExecuteContext(t.Context())
	return cfg, opts, err
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "buildkitd.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestFlagsGoBeforeTheFileAndTheFileBeforeDefaults(t *testing.T) {
	file := `
root = "/file"
debug = true
insecure-entitlements = ["network.host"]
[log]
format = "json"
[grpc]
address = ["unix:///file.sock"]
debugAddress = "file:1"
gid = 7
[grpc.tls]
cert = "file"
[worker.oci]
enabled = true
snapshotter = "native"
max-parallelism = 2
gc = false
labels = { a = "file", b = "file" }
platforms = ["linux/386"]
`
	read := func(c *config.Config) []any {
		oci := c.Workers.OCI
		return []any{
			c.Root, c.Log.Level, c.Log.Format, c.Entitlements, c.GRPC.Addresses, c.GRPC.DebugAddress, c.GRPC.TLS.Cert,
			oci.Enabled, oci.Snapshotter, oci.MaxParallelism, oci.Labels, oci.Platforms, oci.Mode,
		}
	}
	t.Run("nothing said", func(t *testing.T) {
		c, opts, err := parse(t, nil, "--config", "/nonexistent", "--rootless=false")
		require.NoError(t, err)
		require.Equal(t, []any{
			"/var/lib/buildkit", "info", "text", []string(nil),
			[]string{"unix:///run/buildkit/buildkitd.sock"},
			"", "",
			config.Auto, "auto", 0, map[string]string(nil), []string(nil), "auto",
		}, read(c))
		require.Nil(t, c.GRPC.GID)
		require.Nil(t, c.Workers.OCI.GC.Enabled)
		require.False(t, *c.Workers.OCI.Rootless)
		require.NotZero(t, opts.shutdownTimeout)
	})
	t.Run("a file", func(t *testing.T) {
		c, _, err := parse(t, nil, "--config", writeConfig(t, file))
		require.NoError(t, err)
		require.Equal(t, []any{
			"/file", "debug", "json",
			[]string{"network.host"},
			[]string{"unix:///file.sock"},
			"file:1", "file",
			config.On, "native", 2,
			map[string]string{"a": "file", "b": "file"},
			[]string{"linux/386"},
			"auto",
		}, read(c))
		require.Equal(t, 7, *c.GRPC.GID)
		require.False(t, *c.Workers.OCI.GC.Enabled)
	})
	t.Run("flags over a file", func(t *testing.T) {
		c, _, err := parse(t, nil, "--config", writeConfig(t, file),
			"--root=/flag", "--debug=false", "--log-format=text", "--allow-insecure-entitlement=security.insecure",
			"--addr=unix:///a,b.sock", "--addr=tcp://c:1", "--debugaddr=flag:1", "--group=0", "--tlscert=flag",
			"--oci-worker=false", "--oci-worker-snapshotter=overlayfs", "--oci-max-parallelism=3", "--oci-worker-gc",
			"--oci-worker-labels=b=flag", "--oci-worker-labels=c=d=e", "--oci-worker-platform=linux/arm64", "--oci-worker-net=host",
			"--oci-worker-rootless", "--oci-worker-gc-keepstorage=1,,3")
		require.NoError(t, err)
		require.Equal(t, []any{
			"/flag", "info", "text",
			[]string{"security.insecure"},
			[]string{"unix:///a,b.sock", "tcp://c:1"},
			"flag:1", "flag",
			config.Off, "overlayfs", 3,
			map[string]string{"a": "file", "b": "flag", "c": "d=e"},
			[]string{"linux/arm64"},
			"host",
		}, read(c))
		require.Zero(t, *c.GRPC.GID)
		oci := c.Workers.OCI
		require.True(t, *oci.GC.Enabled)
		require.True(t, *oci.Rootless)
		require.Equal(t, config.DiskSpace{Bytes: 1e6}, *oci.ReservedSpace)
		require.Nil(t, oci.MinFreeSpace)
		require.Equal(t, config.DiskSpace{Bytes: 3e6}, *oci.MaxUsedSpace)
	})
	t.Run("variables over a file and under flags", func(t *testing.T) {
		env := map[string]string{"BUILDKITD_LOG_LEVEL": "warn", "BUILDKITD_DEBUGADDR": "env:1"}
		c, _, err := parse(t, env, "--config", writeConfig(t, file))
		require.NoError(t, err)
		require.Equal(t, "warn", c.Log.Level)
		require.Equal(t, "env:1", c.GRPC.DebugAddress)
		c, _, err = parse(t, env, "--config", writeConfig(t, file), "--log-level=error", "--debugaddr=flag:1")
		require.NoError(t, err)
		require.Equal(t, "error", c.Log.Level)
		require.Equal(t, "flag:1", c.GRPC.DebugAddress)
	})
}

func TestTheLevelOfTheLog(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		file string
		want string
	}{
		"a switch goes before the file's level":      {[]string{"--debug"}, "[log]\nlevel = \"warn\"", "debug"},
		"a switch that is off leaves it":             {[]string{"--debug=false"}, "[log]\nlevel = \"warn\"", "warn"},
		"a level goes before the switch beside it":   {[]string{"--debug", "--log-level=error"}, "", "error"},
		"trace is more than debug":                   {[]string{"--debug", "--trace"}, "", "trace"},
		"the file's level goes before its switch":    {nil, "debug = true\n[log]\nlevel = \"warn\"", "warn"},
		"the file's switch without a level":          {nil, "debug = true", "debug"},
		"the file's switch that a flag switches off": {[]string{"--debug=false"}, "debug = true", "info"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := parse(t, nil, append(tc.args, "--config", writeConfig(t, tc.file))...)
			require.NoError(t, err)
			require.Equal(t, tc.want, c.Log.Level)
		})
	}
}

func TestAnUnknownKeyIsAWarningUnlessStrict(t *testing.T) {
	path := writeConfig(t, "rot = \"/x\"\nroot = \"/r\"\n")
	var logged bytes.Buffer
	out := log.L.Logger.Out
	log.L.Logger.SetOutput(&logged)
	t.Cleanup(func() { log.L.Logger.SetOutput(out) })

	c, _, err := parse(t, nil, "--config", path)
	require.NoError(t, err)
	require.Equal(t, "/r", c.Root)
	require.Contains(t, logged.String(), ":1: unknown key rot, did you mean root?")

	_, _, err = parse(t, nil, "--config", path, "--config-strict")
	require.EqualError(t, err, path+":1: unknown key rot, did you mean root?")
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown flag: --nosuchflag":                                   {"--nosuchflag"},
		`unknown command "extra" for "buildkitd"`:                      {"extra"},
		`invalid label "x": want key=value`:                            {"--oci-worker-labels=x"},
		`--oci-worker: "maybe" is neither auto nor a boolean`:          {"--oci-worker=maybe"},
		`unsupported log type "xml"`:                                   {"--log-format=xml"},
		`unsupported log level "loud"`:                                 {"--log-level=loud"},
		"group: unknown group nosuchgroup":                             {"--group=nosuchgroup"},
		`invalid group "-1"`:                                           {"--group=-1"},
		`invalid GC storage "1,x": "x" is no number of MB`:             {"--oci-worker-gc-keepstorage=1,x"},
		`invalid GC storage "1,2,3,4": want Reserved[,Free[,Maximum]]`: {"--oci-worker-gc-keepstorage=1,2,3,4"},
	} {
		_, _, err := parse(t, nil, append([]string{"--config=/nonexistent"}, args...)...)
		require.EqualError(t, err, want)
	}
}

// What the daemon prints when it cannot start. Nothing here may have begun to serve.
func TestTheDaemonSaysWhyItDoesNotStart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	addr := "--addr=unix://" + filepath.Join(t.TempDir(), "d.sock")
	for want, args := range map[string][]string{
		"toml: array is incomplete": {"--config=" + writeConfig(t, "root = [\n")},
		"address nonsense does not contain proto, you meant unix://nonsense ?":                 {"--addr=nonsense"},
		`unsupported log level "loud"`:                                                         {addr, "--log-level=loud"},
		"invalid entitlement : everything":                                                     {addr, "--allow-insecure-entitlement=everything"},
		`unknown snapshotter name: "zfs9"`:                                                     {addr, "--oci-worker-snapshotter=zfs9"},
		"you must specify key and cert file if one is specified":                               {"--addr=tcp://127.0.0.1:0", "--tlscert=x"},
		"no worker found, rebuild the buildkit daemon?":                                        {addr, "--oci-worker=false", "--containerd-worker=false"},
		"no sockets found via socket activation: make sure the service was started by systemd": {"--addr=fd://", "--oci-worker=false", "--containerd-worker=false"},
		"the containerd worker is not supported":                                               {addr, "--containerd-worker=true"},
		"invalid maxRegistryConcurrency -1: want more than 0":                                  {addr, "--config=" + writeConfig(t, "[system]\nmaxRegistryConcurrency = -1")},
	} {
		all := append([]string{"--config=/nonexistent", "--root=" + root}, args...)
		err := newCommand(all, func(string) string { return "" }, run).ExecuteContext(t.Context())
		require.Error(t, err, want)
		var out strings.Builder
		report(&out, err)
		require.True(t, strings.HasPrefix(out.String(), "buildkitd: "+want+"\n"), out.String())
	}
}

func TestTheVersionIsOneLine(t *testing.T) {
	var out strings.Builder
	cmd := newCommand([]string{"--version"}, func(string) string { return "" }, run)
	cmd.SetOut(&out)
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	require.Equal(t, "buildkitd github.com/openbuildkit/buildkit "+version.Version+" "+version.Revision+"\n", out.String())
}

func TestAMistakeInTheFileIsShown(t *testing.T) {
	path := writeConfig(t, "debug = true\nroot = [\n")
	_, _, err := parse(t, nil, "--config", path)
	var out strings.Builder
	report(&out, err)
	require.Equal(t, "buildkitd: toml: array is incomplete\nfailed to parse config "+path+":2:9\n1| debug = true\n2| root = [\n |         ~ array is incomplete\n", out.String())
	require.Error(t, errors.Unwrap(err))
}

func TestFlagsOfAbsentFeaturesAreRead(t *testing.T) {
	cfg, _, err := parse(t, nil, "--config="+writeConfig(t, ""), "--proxy-network=false", "--cdi-disabled", "--cdi-spec-dir=/a", "--cdi-spec-dir=/b",
		"--containerd-worker=false", "--containerd-worker-addr=/run/c.sock", "--containerd-worker-labels=a=b",
		"--containerd-worker-gc=false", "--containerd-worker-gc-keepstorage=1,2,3", "--containerd-worker-net=host",
		"--containerd-worker-platform=linux/arm64", "--oci-worker-proxy-snapshotter-path=/p", "--save-cache-debug=false")
	require.NoError(t, err)
	require.True(t, cfg.CDI.Disabled)
	require.Equal(t, []string{"/a", "/b"}, cfg.CDI.SpecDirs)
	require.Equal(t, "/p", cfg.Workers.OCI.ProxySnapshotterPath)
	require.Empty(t, cfg.Workers.OCI.Labels)
	c := cfg.Workers.Containerd
	require.Equal(t, config.Off, c.Enabled)
	require.Equal(t, "/run/c.sock", c.Address)
	require.Equal(t, map[string]string{"a": "b"}, c.Labels)
	require.False(t, *c.GC.Enabled)
	require.Equal(t, int64(3_000_000), c.MaxUsedSpace.Bytes)
	require.Equal(t, "host", c.Mode)
	require.Equal(t, []string{"linux/arm64"}, c.Platforms)

	cfg, _, err = parse(t, nil, "--config="+writeConfig(t, ""), "--proxy-network")
	require.NoError(t, err)
	require.True(t, cfg.ProxyNetwork, "which is refused later")
	_, _, err = parse(t, nil, "--config="+writeConfig(t, ""), "--save-cache-debug")
	require.EqualError(t, err, "--save-cache-debug is not supported")
}
