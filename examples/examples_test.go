package examples_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestHelloRunsAndItsSecondBuildExecutesNothing(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	daemon := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	context, out := t.TempDir(), t.TempDir()
	require.NoError(t, os.CopyFS(context, os.DirFS("hello")))
	output := "--output=type=local,dest=" + out

	first := daemon.Build(t, context, output)
	require.NotEmpty(t, first.Executed())
	require.Equal(t, "Bonjour, world!\nCiao, world!\nHallo, world!\nHello, world!\nHola, world!\n", run(t, filepath.Join(out, "hello")))

	second := daemon.Build(t, context, output)
	require.Empty(t, second.Executed())
	require.NotEmpty(t, second.Cached())

	script := filepath.Join(context, "hello.sh.in")
	text, err := os.ReadFile(script)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(script, []byte(strings.ReplaceAll(string(text), "@!", "@?")), 0o644))
	third := daemon.Build(t, context, output)
	for _, step := range third.Executed() {
		require.NotContains(t, step, "[words", "nothing of that stage depends on the script")
	}
	require.Contains(t, run(t, filepath.Join(out, "hello")), "Hello, world?")
	daemon.RequireIdle(t)
}

func TestCompileGivesAProgramThatRunsHere(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushDebian(t)
	daemon := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	out := t.TempDir()

	daemon.Build(t, "compile", "--output=type=local,dest="+out)
	require.Equal(t, "2\n3\n5\n", run(t, filepath.Join(out, "primes"), "3"))
	require.Empty(t, daemon.Build(t, "compile", "--output=type=local,dest="+out).Executed())
	daemon.RequireIdle(t)
}

func TestPlatformsGivesOneImageForAll(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushGo(t)
	daemon := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	all := []string{"--opt=build-arg:GO_IMAGE=golang", "--opt=platform=linux/amd64,linux/arm64"}
	reference := registry.Host + "/where:latest"
	daemon.Build(t, "platforms", append(all, "--output=type=image,push=true,name="+reference)...)

	ref, err := name.ParseReference(reference)
	require.NoError(t, err)
	index, err := remote.Index(ref)
	require.NoError(t, err)
	require.NoError(t, validate.Index(index))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
	}
	require.Equal(t, []string{"linux/amd64", "linux/arm64"}, platforms)

	// The host runs what is foreign with the emulators that the tests have.
	out := t.TempDir()
	second := daemon.Build(t, "platforms", append(all, "--output=type=local,dest="+out)...)
	require.Empty(t, second.Executed())
	for folder, want := range map[string]string{"linux_amd64": "linux/amd64\n", "linux_arm64": "linux/arm64\n"} {
		require.Equal(t, want, run(t, filepath.Join(out, folder, "where")))
	}
	daemon.RequireIdle(t)
}

func TestDebugLooksIntoAFailedStep(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	daemon := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	program := filepath.Join(t.TempDir(), "debug")
	run(t, "go", "build", "-buildvcs=false", "-o", program, "./debug")
	out := run(t, program, "-addr", daemon.Addr)
	require.Contains(t, out, "the step has failed: process \"/bin/sh -c ")
	require.Contains(t, out, "exit code: 42\nbegun\nhalf-done\n")
	daemon.RequireIdle(t)
}

// run returns what a program prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}
