package main

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// The reference names every command and flag, and none that there is not.
func TestTheReferenceIsComplete(t *testing.T) {
	data, err := os.ReadFile("../../docs/reference/buildctl.md")
	require.NoError(t, err)
	page := string(data)
	documented := map[string]bool{}
	for _, code := range regexp.MustCompile("`[^`\n]+`").FindAllString(page, -1) {
		for _, m := range regexp.MustCompile(`--([a-z][a-z0-9-]+)`).FindAllStringSubmatch(code, -1) {
			documented[m[1]] = true
		}
	}

	flags := map[string]bool{"help": true, "version": true}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) {
				if !f.Hidden {
					flags[f.Name] = true
				}
			})
		}
		for _, sub := range cmd.Commands() {
			if sub.HasSubCommands() || slices.Contains([]string{"help", "completion"}, sub.Name()) {
				walk(sub)
				continue
			}
			path := sub.CommandPath()[len("buildctl "):]
			require.Regexp(t, "`"+regexp.QuoteMeta(path)+"[` ]", page, "the reference does not name the command %s", path)
			walk(sub)
		}
	}
	walk(newApp().root)
	for name := range flags {
		require.True(t, documented[name], "the reference does not name --%s", name)
	}
	for name := range documented {
		require.True(t, flags[name], "the reference names --%s", name)
	}
}
