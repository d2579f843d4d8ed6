package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/openbuildkit/buildkit/client"
)

type pruneOptions struct {
	filters        []string
	all            bool
	keepDuration   time.Duration
	keepStorage    float64
	keepStorageMin float64
	freeStorage    float64
	verbose        bool
	format         string
}

func newPruneCommand(a *app) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "clean up build cache",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runPrune(cmd, a, o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.keepDuration, "keep-duration", 0, "Keep data newer than this limit")
	f.Float64Var(&o.keepStorage, "keep-storage", 0, "Keep data below this limit (in MB)")
	f.Float64Var(&o.keepStorageMin, "keep-storage-min", 0, "Always allow data above this limit (in MB)")
	f.Float64Var(&o.freeStorage, "free-storage", 0, "Keep free data below this limit (in MB)")
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "Filter records")
	f.BoolVar(&o.all, "all", false, "Include internal/frontend references")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "Verbose output")
	f.StringVar(&o.format, "format", "", formatFlag)
	return cmd
}

func runPrune(cmd *cobra.Command, a *app, o pruneOptions) error {
	tmpl, err := parseFormat(o.format)
	if err != nil {
		return err
	}
	c, err := a.client(cmd.Context())
	if err != nil {
		return err
	}
	const mb = 1e6
	out := cmd.OutOrStdout()
	var total int64
	first := true
	err = c.Prune(cmd.Context(), client.PruneOpt{
		Filters:       o.filters,
		All:           o.all,
		KeepDuration:  o.keepDuration,
		ReservedSpace: int64(o.keepStorageMin * mb),
		MaxUsedSpace:  int64(o.keepStorage * mb),
		MinFreeSpace:  int64(o.freeStorage * mb),
	}, func(r client.UsageInfo) error {
		total += r.Size
		head := first
		first = false
		switch {
		case o.format != "":
			return printFormat(out, tmpl, r)
		case o.verbose:
			return printRecord(out, r)
		}
		return printRecords(out, []client.UsageInfo{r}, head)
	})
	if err != nil || o.format != "" {
		return err
	}
	_, err = fmt.Fprintf(out, "Total:\t%s\n", size(total))
	return err
}
