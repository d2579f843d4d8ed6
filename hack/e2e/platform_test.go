package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// startWithPlatforms starts a daemon whose registry has bases for several platforms.
func startWithPlatforms(t *testing.T, options harness.DaemonOptions) (*harness.Daemon, *harness.Registry) {
	t.Helper()
	d, registry := startWithRegistry(t, options)
	registry.PushPlatforms(t)
	return d, registry
}

func TestEveryPlatformIsBuiltAndPushed(t *testing.T) {
	d, registry := startWithPlatforms(t, harness.DaemonOptions{})
	dir := dockerfile(t,
		"FROM --platform=$BUILDPLATFORM platforms AS host",
		"RUN uname -m > /host",
		"FROM platforms",
		"ARG TARGETARCH TARGETVARIANT",
		"RUN uname -m > /machine && echo $TARGETARCH$TARGETVARIANT > /target",
		"COPY --from=host /host /",
	)
	platforms := "--opt=platform=linux/amd64,linux/arm64,linux/arm/v7"
	reference := registry.Host + "/app:1"
	result := d.Build(t, dir, platforms, "--output=type=image,push=true,name="+reference)
	require.Len(t, ran(result), 7, "one on the host, and two for each platform\n%s", result.Stderr)

	var index v1.IndexManifest
	raw := command(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+reference)
	require.NoError(t, json.Unmarshal([]byte(raw), &index))
	require.Len(t, index.Manifests, 3)
	for i, want := range []struct{ platform, machine, target string }{
		{"linux/amd64", "x86_64", "amd64"},
		{"linux/arm64", "aarch64", "arm64"},
		{"linux/arm/v7", "armv7l", "armv7"},
	} {
		t.Run(want.platform, func(t *testing.T) {
			manifest := index.Manifests[i]
			require.Equal(t, want.platform, manifest.Platform.String())
			temp := t.TempDir()
			layout := filepath.Join(temp, "layout")
			command(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+registry.Host+"/app@"+manifest.Digest.String(), "oci:"+layout+":1")
			image := readLayout(t, layout)
			requireWhole(t, image)
			config, err := image.ConfigFile()
			require.NoError(t, err)
			require.Equal(t, want.platform, config.Platform().String())
			bundle := filepath.Join(temp, "bundle")
			command(t, "umoci", "unpack", "--image="+layout+":1", bundle)
			require.Equal(t, want.machine+"\n", read(t, bundle, "rootfs/machine"))
			require.Equal(t, want.target+"\n", read(t, bundle, "rootfs/target"))
			require.Equal(t, "x86_64\n", read(t, bundle, "rootfs/host"))
		})
	}

	require.Empty(t, ran(d.Build(t, dir, platforms)), "all platforms are in the cache")
	require.Empty(t, ran(d.Build(t, dir, "--opt=platform=linux/arm64")), "and each by itself")
	d.RequireIdle(t)
}

// The bases of busybox differ by their platform alone: what one gave must not be taken for another's.
func TestAPlatformIsPartOfWhatAStepIs(t *testing.T) {
	d := start(t, harness.DaemonOptions{})
	dir := dockerfile(t, "FROM busybox", "RUN cat /proc/sys/kernel/random/uuid > /unique")
	seen := map[string]string{}
	for _, platform := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7"} {
		out := t.TempDir()
		result := d.Build(t, dir, "--opt=platform="+platform, toLocal(out))
		require.Len(t, ran(result), 1, "%s\n%s", platform, result.Stderr)
		seen[read(t, out, "unique")] = platform
	}
	require.Len(t, seen, 3)
}

func TestAStepThatNothingHereCanRunSaysWhy(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	// A program for a processor that is not emulated, in an image that says so.
	vax := "\x7fELF\x01\x01\x01" + string(make([]byte, 9)) + "\x02\x00\x4b\x00" + string(make([]byte, 64))
	dir := tree(t, map[string]string{
		"program":    vax,
		"Dockerfile": "FROM scratch\nCOPY --chmod=755 program /program\nRUN [\"/program\"]\n",
	})
	t.Run("the first program of a container", func(t *testing.T) {
		result := d.Buildctl(t, harness.DockerfileArgs(dir, "--opt=platform=linux/vax")...)
		require.Equal(t, 1, result.Code)
		require.Contains(t, errorMessage(t, result), `process "/program" did not complete successfully: exit code: `)
		require.Contains(t, errorMessage(t, result), "the host of the daemon cannot run linux/vax: no emulator is known")
	})
	t.Run("a program that fails for another reason", func(t *testing.T) {
		registry.PushBusybox(t)
		write(t, filepath.Join(dir, "Dockerfile"), "FROM --platform=linux/amd64 busybox AS base\n"+
			"FROM --platform=linux/vax scratch\nCOPY --from=base / /\nRUN false\n")
		result := d.Buildctl(t, harness.DockerfileArgs(dir)...)
		require.Contains(t, errorMessage(t, result), "exit code: 1")
		require.NotContains(t, result.Stderr, "emulator")
	})
	requireAlive(t, d)
}

func TestEmulatorsAreListedOnceTheyAreThere(t *testing.T) {
	const formats = "/proc/sys/fs/binfmt_misc"
	list := func(d *harness.Daemon) string { return d.MustBuildctl(t, "debug", "workers").Stdout }
	d := harness.StartDaemon(t, harness.DaemonOptions{Config: "[system]\nplatformsCacheMaxAge = '1ms'\n"})
	require.Contains(t, list(d), "\tlinux/"+runtime.GOARCH+",")
	require.Contains(t, list(d), ",linux/arm64,", "run hack/install-deps.sh test")
	require.Contains(t, list(d), ",linux/arm/v7,linux/arm/v6")

	// One that the tests leave alone otherwise.
	const name = "qemu-mips64el"
	format := read(t, "/usr/lib/binfmt.d", name+".conf")
	require.NotContains(t, list(d), "linux/mips64le")
	require.NoError(t, os.WriteFile(filepath.Join(formats, "register"), []byte(format), 0o200))
	unregister := func() { require.NoError(t, os.WriteFile(filepath.Join(formats, name), []byte("-1"), 0o200)) }
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(formats, name)); err == nil {
			unregister()
		}
	})
	require.Contains(t, list(d), ",linux/mips64le,")
	unregister()
	require.NotContains(t, list(d), "linux/mips64le")

	configured := harness.StartDaemon(t, harness.DaemonOptions{Config: "[worker.oci]\nplatforms = ['linux/amd64', 'linux/mips64le']\n"})
	require.Contains(t, list(configured), "\tlinux/amd64,linux/mips64le\n")
}
