package e2e_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/hack/harness"
)

// cdiSpec describes a device with a variable, a node and a mount, and one that is for everybody.
const cdiSpec = `{"cdiVersion": "0.6.0", "kind": "vendor.example/gpu", "devices": [
	{"name": "one", "containerEdits": {
		"env": ["GPU=one"],
		"deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null"}],
		"mounts": [{"hostPath": "/etc/hostname", "containerPath": "/opt/gpu/driver", "options": ["ro", "bind"]}]}},
	{"name": "free", "annotations": {"org.mobyproject.buildkit.device.autoallow": "true", "org.mobyproject.buildkit.device.class": "anything"},
		"containerEdits": {"env": ["GPU=free"]}}]}`

func TestDevicesOfTheHostAreForStepsThatMayHaveThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "gpu.json"), cdiSpec)
	d, _ := startWithRegistry(t, harness.DaemonOptions{Config: "[cdi]\nspecDirs = [\"" + dir + "\"]"})
	out := filepath.Join(t.TempDir(), "out")
	use := func(name string, optional bool, command string, flags ...string) *client {
		state := llb.Image("busybox").Run(llb.Shlex(`sh -c "`+command+`"`), llb.AddCDIDevice(name, optional)).Root()
		return solve(t, d, marshal(t, state), flags...)
	}
	const look = "echo $GPU > /made && test -c /dev/gpu && echo x > /dev/gpu && test -s /opt/gpu/driver"

	workers := d.MustBuildctl(t, "debug", "workers", "--verbose").Stdout
	require.Regexp(t, `Devices:\n\tName:\s+vendor.example/gpu=free\n\tAutoAllow:\s+true\n`, workers)
	require.Regexp(t, `\tName:\s+vendor.example/gpu=one\n\tAutoAllow:\s+false\n`, workers)

	for _, grant := range []string{"device", "device=vendor.example/gpu=one", "device=vendor.example/gpu"} {
		requireSolved(t, use("vendor.example/gpu=one", false, look, "--allow="+grant, "--no-cache", toLocal(out)))
		require.Equal(t, "one\n", read(t, out, "made"))
		require.NoFileExists(t, filepath.Join(out, "opt/gpu/driver"), "what a device is mounted on is no part of the result")
	}
	requireSolved(t, use("mine", false, look, "--allow=device=vendor.example/gpu=one,alias=mine", "--no-cache", toLocal(out)))
	require.Equal(t, "one\n", read(t, out, "made"))
	for _, name := range []string{"vendor.example/gpu=free", "vendor.example/gpu", "anything"} {
		requireSolved(t, use(name, false, "echo $GPU > /made", "--no-cache", toLocal(out)))
		require.Equal(t, "free\n", read(t, out, "made"))
	}
	requireSolved(t, use("vendor.example/none", true, "test -z $GPU"))

	for want, c := range map[string]*client{
		"device vendor.example/gpu=one is requested by the build but not allowed": use("vendor.example/gpu=one", true, look),
		"device vendor.example/gpu=* is requested by the build but not allowed":   use("vendor.example/gpu=*", false, look, "--allow=device=vendor.example/other"),
		`required device "vendor.example/none" is not registered`:                 use("vendor.example/none", false, look),
		`required device "vendor.example/gone" is not registered`:                 use("vendor.example/gone", false, look, "--allow=device"),
		`required device "mine" is not registered`:                                use("mine", false, look),
	} {
		r := c.wait(t)
		require.Equal(t, 1, r.Code, want)
		require.Contains(t, errorMessage(t, r), want)
	}
}

func TestADaemonWithoutDevicesGrantsNone(t *testing.T) {
	t.Parallel()
	d, _ := startWithRegistry(t, harness.DaemonOptions{Args: []string{"--cdi-disabled"}})
	definition := marshal(t, llb.Image("busybox").Run(llb.Shlex("true"), llb.AddCDIDevice("vendor.example/gpu", false)).Root())
	r := solve(t, d, definition, "--allow=device").wait(t)
	require.Contains(t, errorMessage(t, r), "granting entitlement device is not allowed by build daemon configuration")
	r = solve(t, d, definition).wait(t)
	require.Contains(t, errorMessage(t, r), `required device "vendor.example/gpu" is not registered`)
}

func TestADockerfileOfTheLabsChannelGivesStepsDevices(t *testing.T) {
	t.Parallel()
	cdi := t.TempDir()
	write(t, filepath.Join(cdi, "gpu.json"), cdiSpec)
	d, r := startWithRegistry(t, harness.DaemonOptions{Config: "[cdi]\nspecDirs = [\"" + cdi + "\"]"})
	labs := pushFrontend(t, d, r, "./cmd/dockerfile-frontend", frontendLabels, `ENTRYPOINT ["/frontend", "--channel=labs"]`)
	out := filepath.Join(t.TempDir(), "out")
	build := func(lines ...string) func(...string) harness.Result {
		dir := dockerfile(t, append([]string{"# syntax=" + labs, "FROM busybox"}, lines...)...)
		return func(flags ...string) harness.Result {
			return d.Buildctl(t, harness.DockerfileArgs(dir, append(flags, "--no-cache", toLocal(out))...)...)
		}
	}
	useOne := build("ARG NAME=one", "RUN --device=vendor.example/gpu=$NAME,required test -c /dev/gpu && echo $GPU > /made")
	requireSucceeded := func(r harness.Result, made string) {
		t.Helper()
		require.Zero(t, r.Code, r.Stderr)
		require.Equal(t, made, read(t, out, "made"))
	}
	requireSucceeded(useOne("--allow=device=vendor.example/gpu=one"), "one\n")
	requireSucceeded(build("RUN --device=anything echo $GPU > /made")(), "free\n")
	requireSucceeded(build("RUN --device=vendor.example/none echo none $GPU > /made")(), "none\n")

	for want, r := range map[string]harness.Result{
		"device vendor.example/gpu=one is requested by the build but not allowed": useOne(),
		`required device "vendor.example/none" is not registered`:                 build("RUN --device=vendor.example/none,required true")(),
		"device feature is only supported in Dockerfile frontend 1.14.0-labs or later": d.Buildctl(t,
			harness.DockerfileArgs(dockerfile(t, "FROM busybox", "RUN --device=vendor.example/gpu true"))...),
	} {
		require.Equal(t, 1, r.Code, want)
		require.Contains(t, errorMessage(t, r), want)
	}
}
