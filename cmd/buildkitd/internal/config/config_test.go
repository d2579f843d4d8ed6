package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/cache/gc"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
)

func TestEveryKeyIsDecoded(t *testing.T) {
	cfg, unknown, err := config.Load("testdata/full.toml")
	require.NoError(t, err)
	require.Empty(t, unknown)
	// Workers of both kinds share most keys: the file sets those of one.
	cfg.Workers.Containerd.Worker = cfg.Workers.OCI.Worker
	requireSet(t, "", reflect.ValueOf(*cfg))

	require.Equal(t, []string{"unix:///a", "tcp://b:1"}, cfg.GRPC.Addresses)
	require.Zero(t, *cfg.GRPC.GID, "a group of 0 is not none")
	require.Equal(t, 48*time.Hour, cfg.History.MaxAge.Duration)
	require.Equal(t, time.Minute, cfg.System.PlatformsCacheMaxAge.Duration)
	require.False(t, *cfg.Frontends.Dockerfile.Enabled)
	require.Equal(t, map[string]any{"timestampThreshold": int64(1), "certificateIssuer": "i"}, cfg.Cache.GHA.Verify.Policy)
	registry := cfg.Registries["docker.io"]
	require.True(t, *registry.PlainHTTP)
	require.False(t, *registry.Insecure)
	require.Equal(t, []config.KeyPair{{Key: "k", Cert: "c"}}, registry.KeyPairs)
	oci := cfg.Workers.OCI
	require.Equal(t, config.Off, oci.Enabled)
	require.Equal(t, map[string]string{"flavour": "full"}, oci.Labels)
	require.Equal(t, config.DiskSpace{Percent: 30}, *oci.ReservedSpace)
	require.Equal(t, config.DiskSpace{Bytes: 512 << 20}, *oci.MaxUsedSpace)
	require.Equal(t, config.DiskSpace{Bytes: 1000}, *oci.MinFreeSpace)
	require.Equal(t, time.Hour, oci.Policies[0].KeepDuration.Duration)
	require.Equal(t, "rn", cfg.Workers.Containerd.Runtime.Name)
}

// requireSet fails for every field that was left at its zero value, except numbers that may be 0.
func requireSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			requireSet(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice, reflect.Map, reflect.Pointer:
		require.False(t, v.IsNil(), path)
	case reflect.Int64:
		if path[len(path)-len("Bytes"):] != "Bytes" && filepath.Ext(path) != ".Percent" {
			require.False(t, v.IsZero(), path)
		}
	default:
		require.False(t, v.IsZero(), path)
	}
}

func TestAnUnknownKeyNamesTheNearestOne(t *testing.T) {
	for text, want := range map[string]string{
		"rot = 1":                             "f.toml:1: unknown key rot, did you mean root?",
		"[log]\nlevil = 1":                    "f.toml:2: unknown key log.levil, did you mean log.level?",
		"[worker.oci]\nmaxUsdSpace = 1":       "f.toml:2: unknown key worker.oci.maxUsdSpace, did you mean worker.oci.maxUsedSpace?",
		"[worker.ocy]\nenabled = true":        "f.toml:1: unknown key worker.ocy, did you mean worker.oci?",
		"debugAddress = 1":                    "f.toml:1: unknown key debugAddress, did you mean grpc.debugAddress?",
		"[registry.\"a.b\"]\nmiror = 1":       "f.toml:2: unknown key registry.\"a.b\".miror, did you mean registry.\"a.b\".mirrors?",
		"[frontend.dockerfile.v0]\nx=1":       "f.toml:1: unknown key frontend.dockerfile.v0, did you mean frontend.\"dockerfile.v0\"?",
		"[[worker.oci.gcpolicy]]\nkeepDur= 1": "f.toml:2: unknown key worker.oci.gcpolicy.keepDur, did you mean worker.oci.gcpolicy.keepDuration?",
		"xyz = 1":                             "f.toml:1: unknown key xyz, did you mean proxyNetwork?",
	} {
		cfg, unknown, err := config.Parse("f.toml", []byte(text+"\n"))
		require.NoError(t, err, text)
		require.NotNil(t, cfg)
		require.Len(t, unknown, 1, text)
		require.Equal(t, want, unknown[0].String())
	}
}

func TestOtherKeysAreReadBesideAnUnknownOne(t *testing.T) {
	cfg, unknown, err := config.Parse("f.toml", []byte("nosuch = 1\nroot = \"/r\"\n[nosuch2]\na = 1\n[log]\nlevel = \"warn\"\n"))
	require.NoError(t, err)
	require.Len(t, unknown, 2)
	require.Equal(t, "/r", cfg.Root)
	require.Equal(t, "warn", cfg.Log.Level)
}

func TestAFileThatCannotBeReadNamesThePlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.toml")
	require.NoError(t, os.WriteFile(path, []byte("debug = true\nroot = [\n"), 0o600))
	_, _, err := config.Load(path)
	var syntax *config.SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.EqualError(t, err, "toml: array is incomplete")
	require.Contains(t, syntax.Where(), "failed to parse config "+path+":2:9\n")

	_, _, err = config.Load(t.TempDir())
	require.ErrorContains(t, err, "read config: ")

	cfg, unknown, err := config.Load(filepath.Join(t.TempDir(), "absent"))
	require.NoError(t, err)
	require.Empty(t, unknown)
	require.Equal(t, &config.Config{}, cfg)
}

func TestValuesOfTheWrongKindAreRefused(t *testing.T) {
	for _, text := range []string{
		"root = 1",
		"debug = \"yes\"",
		"[history]\nmaxAge = \"soon\"",
		"[history]\nmaxAge = -1",
		"[history]\nmaxAge = \"-1h\"",
		"[history]\nmaxAge = 9223372036854775807",
		"[history]\nmaxAge = []",
		"[worker.oci]\nreservedSpace = \"101%\"",
		"[worker.oci]\nreservedSpace = \"-1%\"",
		"[worker.oci]\nreservedSpace = \"much\"",
		"[worker.oci]\nreservedSpace = -5",
		"[worker.oci]\nreservedSpace = \"-5MB\"",
		"[worker.oci]\nenabled = \"perhaps\"",
	} {
		_, _, err := config.Parse("f.toml", []byte(text+"\n"))
		require.Error(t, err, text)
	}
}

func TestAWorkerIsOnOffOrFoundOut(t *testing.T) {
	for text, want := range map[string]config.Switch{
		"": config.Auto, `enabled = "auto"`: config.Auto, "enabled = true": config.On, `enabled = "false"`: config.Off,
	} {
		cfg, _, err := config.Parse("f.toml", []byte("[worker.oci]\n"+text+"\n"))
		require.NoError(t, err)
		require.Equal(t, want, cfg.Workers.OCI.Enabled)
	}
}

func TestDiskSpaceOfAFileSystem(t *testing.T) {
	for _, tc := range []struct {
		space       config.DiskSpace
		total, want int64
	}{
		{config.DiskSpace{Bytes: 5}, 100, 5},
		{config.DiskSpace{Percent: 10}, 0, 2e9},
		{config.DiskSpace{Percent: 10}, 100 << 30, 11e9},
		{config.DiskSpace{Percent: 50}, 1 << 20, 1e9},
		{config.DiskSpace{Percent: 100}, 1 << 62, (1<<32 + 0) * 1e9},
	} {
		require.InDelta(t, tc.want, tc.space.Of(tc.total), 1e9, "%+v of %d", tc.space, tc.total)
	}
}

func TestDefaultCollectorPolicies(t *testing.T) {
	const total = 1000 << 30
	rules := config.GC{}.Rules(total)
	require.Equal(t, []gc.Policy{
		{
			Filters:      []string{"type==source.local", "type==exec.cachemount", "type==source.git.checkout"},
			KeepDuration: 48 * time.Hour, MaxUsedSpace: 512e6,
		},
		{KeepDuration: 60 * 24 * time.Hour, ReservedSpace: 10e9, MaxUsedSpace: 100e9, MinFreeSpace: 201e9},
		{ReservedSpace: 10e9, MaxUsedSpace: 100e9, MinFreeSpace: 201e9},
		{All: true, ReservedSpace: 10e9, MaxUsedSpace: 100e9, MinFreeSpace: 201e9},
	}, rules)

	rules = config.GC{KeepStorage: &config.DiskSpace{Bytes: 1}, MaxUsedSpace: &config.DiskSpace{Bytes: 2}, MinFreeSpace: &config.DiskSpace{Bytes: 3}}.Rules(total)
	require.Equal(t, gc.Policy{All: true, ReservedSpace: 1, MaxUsedSpace: 2, MinFreeSpace: 3}, rules[3])

	rules = config.GC{Policies: []config.GCPolicy{{KeepBytes: config.DiskSpace{Bytes: 7}}}}.Rules(total)
	require.Equal(t, []gc.Policy{{ReservedSpace: 7}}, rules)

	off := false
	require.Nil(t, config.GC{Enabled: &off}.Rules(total))
}

func TestDefaultsOfAHost(t *testing.T) {
	env := map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1"}
	host := config.Host{Getenv: func(k string) string { return env[k] }}
	cfg := &config.Config{}
	cfg.SetDefaults(host)
	require.Equal(t, "/etc/buildkit/buildkitd.toml", host.ConfigPath())
	require.Equal(t, "/var/lib/buildkit", cfg.Root)
	require.Equal(t, []string{"unix:///run/buildkit/buildkitd.sock"}, cfg.GRPC.Addresses)
	require.Equal(t, "/run/buildkit/otel-grpc.sock", cfg.OTEL.SocketPath)
	require.Equal(t, "info", cfg.Log.Level)
	require.Equal(t, 4, *cfg.System.MaxRegistryConcurrency)
	require.False(t, *cfg.Workers.OCI.Rootless)

	host.Rootless = true
	require.Equal(t, "/var/lib/buildkit", host.Root(), "root of a container in a user namespace")
	env["USER"] = "u"
	cfg = &config.Config{Debug: true}
	cfg.SetDefaults(host)
	require.Equal(t, "/home/u/.config/buildkit/buildkitd.toml", host.ConfigPath())
	require.Equal(t, "/home/u/.local/share/buildkit", cfg.Root)
	require.Equal(t, []string{"unix:///run/user/1/buildkit/buildkitd.sock"}, cfg.GRPC.Addresses)
	require.Equal(t, "/run/user/1/buildkit/otel-grpc.sock", cfg.OTEL.SocketPath)
	require.Equal(t, "debug", cfg.Log.Level)
	require.True(t, *cfg.Workers.OCI.Rootless)
	env["XDG_DATA_HOME"], env["XDG_CONFIG_HOME"] = "/data", "/config"
	require.Equal(t, "/data/buildkit", host.Root())
	require.Equal(t, "/config/buildkit/buildkitd.toml", host.ConfigPath())
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.toml")
	require.NoError(f, err)
	f.Add(full)
	f.Add([]byte("[worker.oci]\nreservedSpace = \"30%\"\n"))
	f.Add([]byte("nosuch.key = 1\n[a.b.c]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, unknown, err := config.Parse("f", data)
		if err != nil {
			return
		}
		for _, k := range unknown {
			if k.Nearest == "" {
				t.Errorf("%s names no known key", k)
			}
		}
		for _, rule := range cfg.Workers.OCI.Rules(1 << 40) {
			if rule.ReservedSpace < 0 || rule.MaxUsedSpace < 0 || rule.MinFreeSpace < 0 {
				t.Errorf("negative rule %+v", rule)
			}
		}
	})
}
