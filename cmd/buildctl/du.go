package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	byteunits "github.com/tonistiigi/units"

	"github.com/openbuildkit/buildkit/client"
)

type duOptions struct {
	filters []string
	verbose bool
	format  string
}

func newDuCommand(a *app) *cobra.Command {
	var o duOptions
	cmd := &cobra.Command{
		Use:   "du",
		Short: "disk usage",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runDu(cmd, a, o) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.filters, "filter", "f", nil, "Filter records")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "Verbose output")
	f.StringVar(&o.format, "format", "", formatFlag)
	return cmd
}

func runDu(cmd *cobra.Command, a *app, o duOptions) error {
	tmpl, err := parseFormat(o.format)
	if err != nil {
		return err
	}
	c, err := a.client(cmd.Context())
	if err != nil {
		return err
	}
	records, err := c.DiskUsage(cmd.Context(), client.DiskUsageOpt{Filters: o.filters})
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if o.format != "" {
		return printFormat(out, tmpl, records)
	}
	if o.verbose {
		for _, r := range records {
			if err := printRecord(out, r); err != nil {
				return err
			}
		}
	} else if err := printRecords(out, records, true); err != nil {
		return err
	}
	if len(o.filters) == 0 {
		return printUsageSummary(out, records)
	}
	return nil
}

// newTable returns a writer of columns that are separated by tabs.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 1, 8, 1, '\t', 0) }

func size(n int64) string { return fmt.Sprintf("%.2f", byteunits.Bytes(n)) }

// printRecords prints a table, with a head if it is the first part of it.
func printRecords(w io.Writer, records []client.UsageInfo, head bool) error {
	t := newTable(w)
	if head {
		fmt.Fprintln(t, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED")
	}
	for _, r := range records {
		id, bytes := r.ID, size(r.Size)
		if r.Mutable {
			id += "*"
		}
		if r.Shared {
			bytes += "*"
		}
		fmt.Fprintf(t, "%-71s\t%-11v\t%s\t\n", id, !r.InUse, bytes)
	}
	return t.Flush()
}

// printRecord prints all that is known of a record, and an empty line.
func printRecord(w io.Writer, r client.UsageInfo) error {
	t := newTable(w)
	row := func(key string, value any) { fmt.Fprintf(t, "%s:\t%v\n", key, value) }
	row("ID", r.ID)
	if len(r.Parents) > 0 {
		row("Parents", strings.Join(r.Parents, ";"))
	}
	row("Created at", r.CreatedAt)
	row("Mutable", r.Mutable)
	row("Reclaimable", !r.InUse)
	row("Shared", r.Shared)
	row("Size", size(r.Size))
	if r.Description != "" {
		row("Description", r.Description)
	}
	row("Usage count", r.UsageCount)
	if r.LastUsedAt != nil {
		row("Last used", units.HumanDuration(time.Since(*r.LastUsedAt))+" ago")
	}
	if r.RecordType != "" {
		row("Type", r.RecordType)
	}
	fmt.Fprintln(t)
	return t.Flush()
}

func printUsageSummary(w io.Writer, records []client.UsageInfo) error {
	var total, reclaimable, shared int64
	for _, r := range records {
		total += r.Size
		if !r.InUse {
			reclaimable += r.Size
		}
		if r.Shared {
			shared += r.Size
		}
	}
	t := newTable(w)
	if shared > 0 {
		fmt.Fprintf(t, "Shared:\t%s\n", size(shared))
		fmt.Fprintf(t, "Private:\t%s\n", size(total-shared))
	}
	fmt.Fprintf(t, "Reclaimable:\t%s\n", size(reclaimable))
	fmt.Fprintf(t, "Total:\t%s\n", size(total))
	return t.Flush()
}
