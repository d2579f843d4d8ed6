package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// The reference names every flag, and none that there is not.
func TestTheReferenceIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/buildkitd.md")
	require.NoError(t, err)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`--([a-z][a-z0-9-]+)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	flags := map[string]bool{"help": true, "version": true}
	newCommand(nil, os.Getenv, nil).Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			flags[f.Name] = true
		}
	})
	for name := range flags {
		require.True(t, documented[name], "the reference does not name --%s", name)
	}
	for name := range documented {
		require.True(t, flags[name], "the reference names --%s", name)
	}
	for _, variable := range []string{logLevelEnv, debugAddrEnv} {
		require.Contains(t, string(page), "`"+variable+"`")
	}
}
