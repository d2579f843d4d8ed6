package main

import (
	"context"
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/client"
)

func newHistoriesCommand(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "histories",
		Short: "list build records",
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
			p := newHistoryPrinter(cmd.OutOrStdout(), format, tmpl, true)
			if err := eachRecord(cmd.Context(), c, &controlpb.BuildHistoryRequest{}, p.print); err != nil {
				return err
			}
			return p.flush()
		},
	}
	cmd.Flags().StringVar(&format, "format", "", formatFlag)
	return cmd
}

// eachRecord calls each for the builds that run and those that have run.
func eachRecord(ctx context.Context, c *client.Client, req *controlpb.BuildHistoryRequest, each func(*controlpb.BuildHistoryEvent) error) error {
	req.EarlyExit = true
	return rpcError(c.ListenHistory(ctx, req, each))
}

// historyPrinter prints events as a table or by a template.
type historyPrinter struct {
	out    io.Writer
	tmpl   *template.Template // nil for the table
	table  interface{ Flush() error }
	pinned bool
}

func newHistoryPrinter(out io.Writer, format string, tmpl *template.Template, pinned bool) *historyPrinter {
	if format != "" {
		return &historyPrinter{out: out, tmpl: tmpl}
	}
	t := newTable(out)
	fmt.Fprint(t, "TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION")
	if pinned {
		fmt.Fprint(t, "\tPINNED")
	}
	fmt.Fprintln(t)
	return &historyPrinter{out: t, table: t, pinned: pinned}
}

func (p *historyPrinter) print(e *controlpb.BuildHistoryEvent) error {
	if p.tmpl != nil {
		return printFormat(p.out, p.tmpl, e)
	}
	r := e.GetRecord()
	fmt.Fprintf(p.out, "%s\t%s\t%s\t%s\t%d", e.GetType(), r.GetRef(), printTime(r.GetCreatedAt()), printTime(r.GetCompletedAt()), r.GetGeneration())
	if p.pinned {
		mark := ""
		if r.GetPinned() {
			mark = "*"
		}
		fmt.Fprint(p.out, "\t"+mark)
	}
	_, err := fmt.Fprintln(p.out)
	return err
}

// check returns the error that print would return, but for that of writing.
func (p *historyPrinter) check(e *controlpb.BuildHistoryEvent) error {
	if p.tmpl == nil {
		return nil
	}
	return printFormat(io.Discard, p.tmpl, e)
}

func (p *historyPrinter) flush() error {
	if p.table == nil {
		return nil
	}
	return p.table.Flush()
}

func printTime(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}
