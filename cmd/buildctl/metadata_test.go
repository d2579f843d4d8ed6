package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMetadataShowsObjectsThatAreEncoded(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	path := filepath.Join(t.TempDir(), "m.json")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	require.NoError(t, writeMetadata(path, map[string]string{
		"object": encode(`{"b":1,"a":[2]}`),
		"empty":  encode(`{}`),
		"list":   encode(`[1]`),
		"text":   "plain <text>",
	}))
	dt, err := os.ReadFile(path)
	require.NoError(t, err)
	require.JSONEq(t, `{"object":{"b":1,"a":[2]},"empty":"e30=","list":"WzFd","text":"plain <text>"}`, string(dt))
	require.Regexp(t, `"b": 1,\n    "a"`, string(dt), "keys of the object were sorted")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestMetadataOfAMissingFolderFails(t *testing.T) {
	require.Error(t, writeMetadata(filepath.Join(t.TempDir(), "no", "m.json"), map[string]string{}))
}
