package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openbuildkit/buildkit/hack/harness"
)

func TestAChainOfProgramsIsABuild(t *testing.T) {
	registry := harness.StartRegistry(t)
	registry.PushBusybox(t)
	d := harness.StartDaemon(t, harness.DaemonOptions{Registry: registry})

	var piped bytes.Buffer
	for _, args := range [][]string{{"image", "busybox"}, {"run", "echo one > /made"}, {"run", "echo two >> /made"}} {
		in := bytes.NewReader(bytes.Clone(piped.Bytes()))
		piped.Reset()
		require.NoError(t, run(args, in, &piped))
	}
	out := t.TempDir()
	build := d.Command(t.Context(), "build", "--output=type=local,dest="+out)
	build.Stdin = &piped
	text, err := build.CombinedOutput()
	require.NoError(t, err, string(text))
	made, err := os.ReadFile(filepath.Join(out, "made"))
	require.NoError(t, err)
	require.Equal(t, "one\ntwo\n", string(made))
}

func TestWrongUseIsToldApart(t *testing.T) {
	for text, args := range map[string][]string{"usage: llb": nil, `unknown step "walk"`: {"walk", "x"}, "standard input is no LLB": {"run", "x"}} {
		require.ErrorContains(t, run(args, strings.NewReader("\xff"), &bytes.Buffer{}), text)
	}
}
