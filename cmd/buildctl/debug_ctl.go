package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func newCtlCommand(a *app) *cobra.Command {
	var pin, unpin, del bool
	cmd := &cobra.Command{
		Use:   "ctl REF",
		Short: "control build records",
		Args:  oneRef,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !pin && !unpin && !del:
				return errors.New("must specify one of --pin, --unpin, --delete")
			case pin && unpin:
				return errors.New("cannot specify both --pin and --unpin")
			case del && (pin || unpin):
				return errors.New("cannot specify --delete with --pin or --unpin")
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			if del {
				return c.DeleteHistory(cmd.Context(), args[0])
			}
			return c.PinHistory(cmd.Context(), args[0], pin)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&pin, "pin", false, "pin build so it will not be garbage collected")
	f.BoolVar(&unpin, "unpin", false, "unpin build")
	f.BoolVar(&del, "delete", false, "delete build record")
	return cmd
}
