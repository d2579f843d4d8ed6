package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestAFrontendRunsOnTheSideOfTheClient(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	dir, out := t.TempDir(), t.TempDir()
	write := func(text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Shopfile"), []byte(text), 0o600))
	}
	t.Setenv("BUILDKIT_HOST", d.Addr)

	write("from busybox\n\necho bread > /basket\necho milk >> /basket\n")
	require.NoError(t, start(t.Context(), []string{dir, out}))
	basket, err := os.ReadFile(filepath.Join(out, "basket"))
	require.NoError(t, err)
	require.Equal(t, "bread\nmilk\n", string(basket))

	write("echo bread\n")
	require.ErrorContains(t, start(t.Context(), []string{dir, out}), "line 1: a command before the first image")
	require.ErrorContains(t, start(t.Context(), []string{dir}), "usage:")
}

func TestAFrontendIsAnImage(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	image, dir, out := t.TempDir(), t.TempDir(), t.TempDir()
	compile := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(image, "frontend"), ".")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", text)
	dockerfile := "FROM scratch\nCOPY frontend /\nENTRYPOINT [\"/frontend\"]\n"
	require.NoError(t, os.WriteFile(filepath.Join(image, "Dockerfile"), []byte(dockerfile), 0o600))
	name := registry.Host + "/shop:1"
	d.Build(t, image, "--output=type=image,push=true,name="+name)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "Shopfile"), []byte("from busybox\necho bread > /basket\n"), 0o600))
	d.MustBuildctl(t, "build", "--progress=plain", "--frontend=gateway.v0", "--opt=source="+name, "--local=context="+dir,
		"--output=type=local,dest="+out)
	basket, err := os.ReadFile(filepath.Join(out, "basket"))
	require.NoError(t, err)
	require.Equal(t, "bread\n", string(basket))
}
