package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newDialStdioCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "dial-stdio",
		Short:  "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			return dialStdio(a.flags.addr, os.Stdin, os.Stdout)
		},
	}
}

// dialStdio is a connection to a daemon of this machine. It ends when the daemon's side does.
func dialStdio(addr string, in io.Reader, out io.Writer) error {
	scheme, path, ok := strings.Cut(addr, "://")
	if !ok {
		return fmt.Errorf("invalid address %s", addr)
	}
	if scheme != "unix" {
		return fmt.Errorf("invalid address %s (expected unix://, got %s://)", addr, scheme)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	// The other end of in may keep it open: nothing waits for this.
	go func() {
		_, _ = io.Copy(conn, in)
		_ = conn.CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	return err
}
