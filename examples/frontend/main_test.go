package main

import (
	"os"
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
