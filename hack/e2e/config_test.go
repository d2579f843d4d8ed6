package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// Keys whose effect no other test here sees, all in one daemon.
func TestADaemonIsWhatItsConfigurationSays(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "second.sock")
	d, registry := startWithRegistry(t, harness.DaemonOptions{Config: fmt.Sprintf(`
insecure-entitlements = ["network.host"]
[log]
format = "json"
level = "debug"
[grpc]
address = ["unix:///not/used.sock"]
uid = 1001
gid = 1002
debugAddress = "unix://%s/debug.sock"
[dns]
nameservers = ["192.0.2.53"]
options = ["ndots:2"]
searchDomains = ["build.example"]
[worker.oci]
snapshotter = "native"
gc = true
labels = {zone = "a"}
[[worker.oci.gcpolicy]]
all = true
filters = ["type==source.local"]
keepDuration = "48h"
maxUsedSpace = "512MB"
`, dir), Args: []string{"--addr=unix://" + socket}})
	registry.PushBusybox(t)

	t.Run("flags go before the file", func(t *testing.T) {
		require.NoFileExists(t, "/not/used.sock")
		d.MustBuildctl(t, "--addr=unix://"+socket, "debug", "info")
		info, err := os.Stat(socket)
		require.NoError(t, err)
		owner, ok := info.Sys().(*syscall.Stat_t)
		require.True(t, ok)
		require.Equal(t, []uint32{1001, 1002}, []uint32{owner.Uid, owner.Gid})
		require.Zero(t, info.Mode().Perm()&0o007, "others have no access")
	})
	t.Run("logs", func(t *testing.T) {
		for line := range strings.Lines(d.Logs()) {
			var entry struct{ Level, Msg, Time string }
			require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
			require.NotEmpty(t, entry.Level, line)
		}
	})
	t.Run("the worker", func(t *testing.T) {
		workers := d.MustBuildctl(t, "debug", "workers", "-v").Stdout
		require.Regexp(t, `zone:\s+a\n`, workers)
		require.Regexp(t, `org\.mobyproject\.buildkit\.worker\.snapshotter:\s+native\n`, workers)
		require.Regexp(t, `GC Policy rule#0:\n\tAll:\s+true\n\tFilters:\s+type==source.local\n\tKeep duration:\s+48h0m0s\n\tMaximum used space:\s+536\.87MB\n`, workers)
	})
	t.Run("what steps resolve names with", func(t *testing.T) {
		out := t.TempDir()
		d.Build(t, dockerfile(t, "FROM busybox AS run", "RUN cat /etc/resolv.conf > /resolv.conf", "FROM scratch", "COPY --from=run /resolv.conf /"), toLocal(out))
		require.Equal(t, "nameserver 192.0.2.53\nsearch build.example\noptions ndots:2\n", read(t, out, "resolv.conf"))
	})
	t.Run("what builds may ask for", func(t *testing.T) {
		network := dockerfile(t, "FROM busybox", "RUN --network=host true")
		d.Build(t, network, "--allow=network.host")
		insecure := dockerfile(t, "FROM busybox", "RUN --security=insecure true")
		result := d.Buildctl(t, harness.DockerfileArgs(insecure, "--allow=security.insecure")...)
		require.Equal(t, 1, result.Code)
		require.Contains(t, errorMessage(t, result), "security.insecure is not allowed")
	})
}

func TestAFrontendCanBeSwitchedOff(t *testing.T) {
	d := harness.StartDaemon(t, harness.DaemonOptions{Config: "[frontend.'dockerfile.v0']\nenabled = false\n"})
	result := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, "FROM scratch"))...)
	require.Equal(t, 1, result.Code)
	require.Contains(t, errorMessage(t, result), "dockerfile.v0")
}
