package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	controlpb "github.com/openbuildkit/buildkit/api/control"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/client/progress"
)

// errNoRef is the error of the commands that are about one build.
var errNoRef = errors.New("build ref must be specified")

// oneRef wants the ref of a build as the only argument.
func oneRef(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || args[0] == "":
		return errNoRef
	case len(args) > 1:
		return fmt.Errorf("unexpected argument %q: %s takes one build ref", args[1], cmd.CommandPath())
	}
	return nil
}

func newLogsCommand(a *app) *cobra.Command {
	var (
		mode  string
		trace bool
	)
	cmd := &cobra.Command{
		Use:   "logs REF",
		Short: "display build logs",
		Args:  oneRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			if trace {
				return printTrace(cmd.Context(), cmd.OutOrStdout(), c, args[0])
			}
			return printLogs(cmd.Context(), c, args[0], mode)
		},
	}
	cmd.Flags().StringVar(&mode, "progress", "auto", "progress output type (auto, plain, tty, quiet, rawjson)")
	cmd.Flags().BoolVar(&trace, "trace", false, "show opentelemetry trace")
	return cmd
}

// printLogs shows what a build tells, or has told, on stdout.
func printLogs(ctx context.Context, c *client.Client, ref, flag string) error {
	mode, err := progressMode(flag, os.Getenv)
	if err != nil {
		return err
	}
	display, err := progress.New(mode, os.Stdout, os.Getenv)
	if err != nil {
		return err
	}
	var eg errgroup.Group
	eg.Go(func() error { return display.Run(context.WithoutCancel(ctx)) })
	eg.Go(func() error {
		defer display.Close()
		return rpcError(c.Status(ctx, ref, display))
	})
	return eg.Wait()
}

// printTrace prints the spans of a build that has ended.
func printTrace(ctx context.Context, w io.Writer, c *client.Client, ref string) error {
	// The trace is there a little after the build, or when it is asked for. That of a build that is
	// not known is told below.
	_ = c.FinalizeHistory(ctx, ref)
	var rec *controlpb.BuildHistoryRecord
	err := eachRecord(ctx, c, &controlpb.BuildHistoryRequest{Ref: ref}, func(e *controlpb.BuildHistoryEvent) error {
		rec = e.GetRecord()
		return nil
	})
	switch {
	case err != nil:
		return err
	case rec == nil:
		return fmt.Errorf("ref %s not found", ref)
	case rec.GetTrace() == nil:
		return fmt.Errorf("ref %s does not have trace", ref)
	}
	return c.ReadBlob(ctx, digest.Digest(rec.GetTrace().GetDigest()), w)
}

// rpcError shows the error of a call with its code.
func rpcError(err error) error {
	var e *status.Error
	if !errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("rpc error: code = %s desc = %w", e.Code(), e)
}
