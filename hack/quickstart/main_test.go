package main

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheQuickstartDoesWhatTheReadmeSays(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "make", "quickstart")
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "\nHello, world!\n")
	require.Contains(t, string(out), "steps came from the cache")
}
