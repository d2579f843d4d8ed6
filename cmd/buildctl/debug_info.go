package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/openbuildkit/buildkit/client"
)

func newInfoCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "info",
		Short: "display internal information",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tmpl, err := parseFormat(format)
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			info, err := c.Info(cmd.Context())
			if err != nil {
				return err
			}
			if format != "" {
				return printFormat(cmd.OutOrStdout(), tmpl, info)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 1, ' ', 0)
			printVersion(t, info.BuildkitVersion)
			return t.Flush()
		},
	}
	cmd.Flags().StringVar(&format, "format", "", formatFlag)
	return cmd
}

func printVersion(w io.Writer, v client.BuildkitVersion) {
	fmt.Fprintf(w, "BuildKit:\t%s %s %s\n", v.Package, v.Version, v.Revision)
	if v.DockerfileVersion != "" {
		fmt.Fprintf(w, "Dockerfile:\t%s\n", v.DockerfileVersion)
	}
}
