package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestADefinitionIsMadeByAStep(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})
	var def bytes.Buffer
	require.NoError(t, run(t.Context(), "busybox", &def))
	dir := t.TempDir()
	build := d.Command(t.Context(), "build", "--progress=plain", "--output=type=local,dest="+dir)
	build.Stdin = &def
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(filepath.Join(dir, "result"))
	require.NoError(t, err)
	require.Equal(t, "built from within\n", string(text))
}
