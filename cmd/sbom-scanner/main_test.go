package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// environment returns what a builder sets, for trees with one package each.
func environment(t *testing.T, extras ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	install := func(tree string) {
		path := filepath.Join(dir, tree, "lib/apk/db/installed")
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("P:musl\nV:1\n"), 0o644))
	}
	install("core/sbom")
	env := map[string]string{envSource: dir + "/core/sbom", envDestination: dir + "/out/"}
	for _, name := range extras {
		install("extras/" + name)
		env[envExtras] = dir + "/extras/"
	}
	require.NoError(t, os.Mkdir(dir+"/out", 0o755))
	return env
}

func call(env map[string]string) (string, error) {
	var log bytes.Buffer
	err := run(func(name string) string { return env[name] }, &log)
	return log.String(), err
}

func TestEveryTreeHasAFileOfItsName(t *testing.T) {
	env := environment(t, "sbom-context", "sbom-build")
	env[envEpoch] = "0"
	log, err := call(env)
	require.NoError(t, err)
	require.Equal(t, "sbom: 1 packages\nsbom-build: 1 packages\nsbom-context: 1 packages\n", log)
	for _, name := range []string{"sbom", "sbom-build", "sbom-context"} {
		data, err := os.ReadFile(env[envDestination] + name + ".spdx.json")
		require.NoError(t, err)
		require.Contains(t, string(data), `"created":"1970-01-01T00:00:00Z"`)
		require.Contains(t, string(data), "pkg:apk/musl@1")
	}
}

func TestWhatTheBuilderGivesIsChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]string)
		err    string
	}{
		"no source":           {func(e map[string]string) { delete(e, envSource) }, "BUILDKIT_SCAN_SOURCE is not set"},
		"no destination":      {func(e map[string]string) { delete(e, envDestination) }, "BUILDKIT_SCAN_DESTINATION is not set"},
		"a source of nothing": {func(e map[string]string) { e[envSource] += "x" }, "no such file or directory"},
		"extras of nothing":   {func(e map[string]string) { e[envExtras] = e[envSource] + "x" }, "no such file or directory"},
		"nowhere to write to": {func(e map[string]string) { e[envDestination] += "x" }, "no such file or directory"},
		"no time":             {func(e map[string]string) { e[envEpoch] = "today" }, "invalid BUILDKIT_SCAN_SOURCE_DATE_EPOCH: today"},
		"a file in the way": {func(e map[string]string) {
			_ = os.WriteFile(e[envDestination]+"sbom.spdx.json", nil, 0o644)
		}, "file exists"},
	} {
		t.Run(name, func(t *testing.T) {
			env := environment(t)
			tc.change(env)
			_, err := call(env)
			require.ErrorContains(t, err, tc.err)
		})
	}
}
