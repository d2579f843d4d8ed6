package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capability "github.com/containerd/containerd/v2/pkg/cap"
	"github.com/opencontainers/runtime-spec/specs-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

// The image of the daemon, built by the daemon as `make image` does, is run in a container with the
// privileges that docs/running/container.md asks for, and builds in there. Only its bases are not the
// usual ones: there is no registry here to pull them from.
func TestTheDaemonBuildsItsOwnImageWhichBuilds(t *testing.T) {
	d, registry := startWithRegistry(t, harness.DaemonOptions{})
	registry.PushGo(t)
	archive := filepath.Join(t.TempDir(), "buildkit.tar")
	bases := []string{
		"--opt=build-arg:GO_IMAGE=golang", "--opt=build-arg:RUNTIME_IMAGE=debian", "--opt=build-arg:GOPROXY=" + harness.ServeModules(t),
	}
	build := exec.CommandContext(t.Context(), "make", "image", "VERSION=v0.0.0-image", "REVISION=image", "IMAGE="+archive,
		"IMAGEFLAGS=--progress=plain "+strings.Join(bases, " "))
	build.Dir = harness.Root(t)
	build.Env = append(os.Environ(), "BUILDKIT_HOST="+d.Addr)
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	c := runImage(t, archive, registry)
	require.Contains(t, c.run(t, "buildctl", "--version"), " v0.0.0-image ")
	require.Contains(t, c.buildctl(t, "debug", "workers"), "linux/arm64", "emulators of the host work in the container")
	result := filepath.Join(t.TempDir(), "result")
	hello := []string{
		"build", "--progress=plain", "--frontend=dockerfile.v0", "--local=context=../../examples/hello",
		"--local=dockerfile=../../examples/hello", toLocal(result),
	}
	c.buildctl(t, hello...)
	require.Contains(t, command(t, filepath.Join(result, "hello")), "Hello, world!")
	second := harness.Result{Stderr: c.buildctl(t, hello...)}
	require.Empty(t, second.Executed())
	require.NotEmpty(t, second.Cached())
	c.stop(t)

	// The other images take what was compiled for the first one.
	push := func(target string, more ...string) (name string) {
		name = registry.Host + "/built/" + target + ":1"
		args := slices.Concat(bases, more, []string{
			"--opt=build-arg:VERSION=v0.0.0-image", "--opt=build-arg:REVISION=image", "--opt=target=" + target,
			"--output=type=image,push=true,name=" + name,
		})
		for _, step := range d.Build(t, harness.Root(t), args...).Executed() {
			require.NotContains(t, step, "go build")
		}
		return name
	}
	useScannerImage(t, push("frontend", "--opt=attest:sbom=generator="+push("sbom-scanner")))
	useFrontendImages(t, d, registry.Host+"/built/frontend:1", push("frontend-labs"))
}

// useScannerImage looks at what the scanner found in an image of a program.
func useScannerImage(t *testing.T, scanned string) {
	t.Helper()
	_, all := attested(t, pulledIndex(t, scanned), "linux/amd64")
	require.Len(t, all, 1)
	doc, err := spdxjson.Read(bytes.NewReader(all[0].Predicate))
	require.NoError(t, err)
	var names []string
	for _, p := range doc.Packages {
		names = append(names, p.PackageName)
	}
	require.Contains(t, names, "stdlib")
	require.Contains(t, names, "github.com/openbuildkit/buildkit")
}

// useFrontendImages builds with the frontends of either channel.
func useFrontendImages(t *testing.T, d *harness.Daemon, stable, labs string) {
	t.Helper()
	out := t.TempDir()
	lines := []string{"FROM busybox", "RUN --device=vendor.example/none echo built >/made"}
	d.Build(t, dockerfile(t, append([]string{"# syntax=" + labs}, lines...)...), toLocal(out))
	require.Equal(t, "built\n", read(t, out, "made"))
	r := d.Buildctl(t, harness.DockerfileArgs(dockerfile(t, append([]string{"# syntax=" + stable}, lines...)...))...)
	require.Contains(t, errorMessage(t, r), "device feature is only supported in Dockerfile frontend 1.14.0-labs or later")
	r = d.Build(t, "../../examples/hello", "--opt=build-arg:BUILDKIT_SYNTAX="+stable, toLocal(filepath.Join(out, "hello")))
	require.Contains(t, r.Stderr, "resolve image config for docker-image://"+stable)
	require.Contains(t, command(t, filepath.Join(out, "hello", "hello")), "Hello, world!")
}

// container is a running container of the daemon's image.
type container struct {
	name, state, bin string
	done             chan error
	log              *output
}

// runImage unpacks a docker archive and runs it, with access to the registry, as engines run a
// privileged container.
func runImage(t *testing.T, archive string, registry *harness.Registry) *container {
	t.Helper()
	temp := t.TempDir()
	layout, bundle := filepath.Join(temp, "layout"), filepath.Join(temp, "bundle")
	command(t, "skopeo", "copy", "docker-archive:"+archive, "oci:"+layout+":1")
	command(t, "umoci", "unpack", "--image="+layout+":1", bundle)
	config := filepath.Join(temp, "buildkitd.toml")
	write(t, config, fmt.Sprintf("[registry.'docker.io']\nmirrors = [%q]\n[registry.%q]\nhttp = true\n", registry.Host, registry.Host))
	state := filepath.Join(temp, "var")
	require.NoError(t, os.Mkdir(state, 0o700))
	makePrivileged(t, filepath.Join(bundle, "config.json"), map[string]string{
		"/var/lib/buildkit":            state,
		"/etc/buildkit/buildkitd.toml": config,
	})

	c := &container{
		name: "buildkit-image-test", state: filepath.Join(temp, "runc"), bin: harness.Binaries(t),
		done: make(chan error, 1), log: newOutput(),
	}
	cmd := exec.Command("runc", "--root="+c.state, "run", "--bundle="+bundle, c.name)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	require.NoError(t, cmd.Start())
	go func() { c.done <- cmd.Wait() }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the container:\n%s", c.log)
		}
		_ = exec.Command("runc", "--root="+c.state, "delete", "--force", c.name).Run() // it may be gone
	})
	eventually(t, 30*time.Second, func() error {
		return exec.CommandContext(t.Context(), "runc", "--root="+c.state, "exec", c.name, "buildctl", "debug", "info").Run()
	})
	return c
}

// makePrivileged changes a bundle to what `docker run --privileged --network=host` with these binds
// makes of an image.
func makePrivileged(t *testing.T, path string, binds map[string]string) {
	t.Helper()
	var spec specs.Spec
	require.NoError(t, json.Unmarshal([]byte(read(t, path)), &spec))
	// What the test itself lacks it cannot give.
	all, err := capability.Current()
	require.NoError(t, err)
	spec.Process.Terminal = false
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths, spec.Linux.Seccomp = nil, nil, nil
	spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}
	spec.Linux.Namespaces = []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
	}
	for i := range spec.Mounts {
		if m := &spec.Mounts[i]; m.Destination == "/sys" {
			m.Type, m.Source, m.Options = "sysfs", "sysfs", []string{"nosuid", "noexec", "nodev"}
		}
	}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev"},
	})
	for target, source := range binds {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: target, Type: "bind", Source: source, Options: []string{"rbind", "rw"}})
	}
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	write(t, path, string(text))
}

// run runs a program in the container.
func (c *container) run(t *testing.T, args ...string) string {
	t.Helper()
	return command(t, "runc", append([]string{"--root=" + c.state, "exec", c.name}, args...)...)
}

// buildctl runs the host's client, which reaches the daemon through the engine of the container: what
// it starts as docker is runc here.
func (c *container) buildctl(t *testing.T, args ...string) string {
	t.Helper()
	engine := t.TempDir()
	script := filepath.Join(engine, "docker")
	write(t, script, "#!/bin/sh\nshift 2\nexec runc --root="+c.state+" exec \"$@\"\n") // without "exec -i"
	require.NoError(t, os.Chmod(script, 0o755))
	cmd := exec.CommandContext(t.Context(), filepath.Join(c.bin, "buildctl"), append([]string{"--addr=docker-container://" + c.name}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+engine+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// stop ends the container as its engine does, and expects it to end well.
func (c *container) stop(t *testing.T) {
	t.Helper()
	command(t, "runc", "--root="+c.state, "kill", c.name, "TERM")
	select {
	case err := <-c.done:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the container does not stop")
	}
}
