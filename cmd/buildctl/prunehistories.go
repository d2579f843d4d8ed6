package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

func newPruneHistoriesCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "prune-histories",
		Short: "clean up build histories",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runPruneHistories(cmd, a, format) },
	}
	cmd.Flags().StringVar(&format, "format", "", formatFlag)
	return cmd
}

// runPruneHistories deletes every record that is not pinned. One that cannot be deleted does not
// keep the others.
func runPruneHistories(cmd *cobra.Command, a *app, format string) error {
	tmpl, err := parseFormat(format)
	if err != nil {
		return err
	}
	c, err := a.client(cmd.Context())
	if err != nil {
		return err
	}
	p := newHistoryPrinter(cmd.OutOrStdout(), format, tmpl, false)
	var failures []error
	err = eachRecord(cmd.Context(), c, &controlpb.BuildHistoryRequest{}, func(e *controlpb.BuildHistoryEvent) error {
		if e.GetType() != controlpb.BuildHistoryEventType_COMPLETE || e.GetRecord().GetPinned() {
			return nil
		}
		// A template that does not fit is told before anything is gone.
		if err := p.check(e); err != nil {
			return err
		}
		if err := c.DeleteHistory(cmd.Context(), e.GetRecord().GetRef()); err != nil {
			failures = append(failures, fmt.Errorf("delete %s: %w", e.GetRecord().GetRef(), err))
			return nil
		}
		return p.print(e)
	})
	return errors.Join(err, p.flush(), errors.Join(failures...))
}
