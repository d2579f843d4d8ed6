package main

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
)

func newGetCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get DIGEST",
		Short: "retrieve a blob from contentstore",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || args[0] == "":
				return errors.New("blob digest must be specified")
			case len(args) > 1:
				return fmt.Errorf("unexpected argument %q: %s takes one digest", args[1], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dgst, err := digest.Parse(args[0])
			if err != nil {
				return err
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			err = c.ReadBlob(cmd.Context(), dgst, cmd.OutOrStdout())
			if code := status.Code(err); code != codes.OK && code != codes.Unknown {
				return fmt.Errorf("%s: %w", code, rpcError(err))
			}
			return err
		},
	}
}
