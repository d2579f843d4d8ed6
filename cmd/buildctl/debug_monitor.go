package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	controlpb "github.com/openbuildkit/buildkit/api/control"
)

func newMonitorCommand(a *app) *cobra.Command {
	var (
		completed bool
		ref       string
	)
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "display build events",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return rpcError(c.ListenHistory(cmd.Context(), &controlpb.BuildHistoryRequest{ActiveOnly: !completed, Ref: ref},
				func(e *controlpb.BuildHistoryEvent) error { return printEvent(cmd.OutOrStdout(), e) }))
		},
	}
	cmd.Flags().BoolVar(&completed, "completed", false, "show completed builds")
	cmd.Flags().StringVar(&ref, "ref", "", "show events for a specific build")
	return cmd
}

func printEvent(w io.Writer, e *controlpb.BuildHistoryEvent) error {
	r := e.GetRecord()
	fmt.Fprintf(w, "event: %s ref:%s\n", e.GetType(), r.GetRef())
	if e.GetType() != controlpb.BuildHistoryEventType_COMPLETE {
		return nil
	}
	if r.GetError() != nil {
		fmt.Fprintf(w, "  error: %s\n", r.GetError().GetMessage())
	}
	fmt.Fprintf(w, "  cache: %d/%d\n", r.GetNumCachedSteps(), r.GetNumTotalSteps())
	if n := r.GetNumWarnings(); n > 0 {
		fmt.Fprintf(w, "  warnings: %d\n", n)
	}
	printDescriptor(w, "logs", r.GetLogs())
	printDescriptor(w, "trace", r.GetTrace())
	for _, d := range r.GetResult().GetAttestations() {
		printDescriptor(w, "attestation", d)
	}
	return nil
}

func printDescriptor(w io.Writer, name string, d *controlpb.Descriptor) {
	if d == nil {
		return
	}
	fmt.Fprintf(w, "  %s: media_type:%q  digest:%q  size:%d", name, d.GetMediaType(), d.GetDigest(), d.GetSize())
	for _, key := range slices.Sorted(maps.Keys(d.GetAnnotations())) {
		fmt.Fprintf(w, "  annotations:{key:%q  value:%q}", key, d.GetAnnotations()[key])
	}
	fmt.Fprintln(w)
}
