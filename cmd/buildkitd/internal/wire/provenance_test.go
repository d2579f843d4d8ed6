package wire

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheProvenanceEnvironmentIsMerged(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) { require.NoError(t, os.WriteFile(dir+"/"+name, []byte(content), 0o600)) }
	env, err := readProvenanceEnv(dir + "/absent")
	require.NoError(t, err)
	require.Empty(t, env)
	write("10.json", `{"a": 1, "b": {"c": "d"}}`)
	write("20.json", `{"a": 2}`)
	write("30.txt", `none`)
	env, err = readProvenanceEnv(dir)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"a": 2.0, "b": map[string]any{"c": "d"}}, env)

	for content, want := range map[string]string{
		"[]": "provenance environment " + dir + "/40.json: json: ", `{"platform": "x"}`: `key "platform" of the provenance environment is reserved`,
		`{"buildConfig": 1}`: `key "buildConfig"`, `{"builderPlatform": 1}`: `key "builderPlatform"`,
	} {
		write("40.json", content)
		_, err = readProvenanceEnv(dir)
		require.ErrorContains(t, err, want)
	}
}
