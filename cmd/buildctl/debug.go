package main

import "github.com/spf13/cobra"

func newDebugCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "debug utilities",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newDumpLLBCommand(),
		newDumpMetadataCommand(),
		newWorkersCommand(a),
		newInfoCommand(a),
		newMonitorCommand(a),
		newHistoriesCommand(a),
		newLogsCommand(a),
		newCtlCommand(a),
		newGetCommand(a),
	)
	return cmd
}
