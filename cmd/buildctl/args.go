package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArgs refuses arguments of a command that has flags only.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q: %s takes only flags", args[0], cmd.CommandPath())
	}
	return nil
}
