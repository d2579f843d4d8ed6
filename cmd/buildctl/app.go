package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/openbuildkit/buildkit/client"
	"github.com/openbuildkit/buildkit/cmd/internal/logging"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
)

// app is one run of the program.
type app struct {
	root  *cobra.Command
	flags globalFlags
	// trace is that of the command; nil if none has begun.
	trace *tracing
	// closers are run when the command has ended, last first.
	closers []func() error
}

// builds is the annotation of commands that build.
const builds = "builds"

type globalFlags struct {
	debug     bool
	addr      string
	logFormat string
	tls       tlsFlags
	timeout   int
	wait      bool
	profile   profileFlags
}

func newApp() *app {
	a := &app{}
	root := &cobra.Command{
		Use:           "buildctl",
		Short:         "build utility",
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(version.Line("buildctl") + "\n")
	root.SetErrPrefix("error:")
	addr := os.Getenv("BUILDKIT_HOST")
	if addr == "" {
		addr = client.DefaultAddress
	}
	f := root.PersistentFlags()
	f.BoolVar(&a.flags.debug, "debug", false, "enable debug output in logs")
	f.StringVar(&a.flags.addr, "addr", addr, "buildkitd address")
	f.StringVar(&a.flags.logFormat, "log-format", "text", "log formatter: json or text")
	f.StringVar(&a.flags.tls.serverName, "tlsservername", "", "buildkitd server name for certificate validation")
	f.StringVar(&a.flags.tls.caCert, "tlscacert", "", "CA certificate for validation")
	f.StringVar(&a.flags.tls.cert, "tlscert", "", "client certificate")
	f.StringVar(&a.flags.tls.key, "tlskey", "", "client key")
	f.StringVar(&a.flags.tls.dir, "tlsdir", "", "directory containing CA certificate, client certificate, and client key. Supported file names are (ca.pem, cert.pem, key.pem) or (ca.crt, tls.crt, tls.key)")
	f.IntVar(&a.flags.timeout, "timeout", 5, "timeout backend connection after value seconds, 0 for none")
	f.BoolVar(&a.flags.wait, "wait", false, "block RPCs until the connection becomes available")
	a.flags.profile.register(f)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.start(cmd) }
	root.AddCommand(
		newBuildCommand(a),
		newDuCommand(a),
		newPruneCommand(a),
		newPruneHistoriesCommand(a),
		newDebugCommand(a),
		newDialStdioCommand(a),
	)
	a.root = root
	return a
}

// start does what holds for all commands.
func (a *app) start(cmd *cobra.Command) error {
	level := "info"
	if a.flags.debug {
		level = "debug"
	}
	if err := logging.SetUp(a.flags.logFormat, level); err != nil {
		return err
	}
	stop, err := a.flags.profile.start()
	if err != nil {
		return err
	}
	a.closers = append(a.closers, stop)
	ctx, tracing, err := startTracing(cmd.Context(), cmd.CommandPath(), cmd.Annotations[builds] != "", os.Args, os.Getenv)
	if err != nil {
		return err
	}
	a.trace = tracing
	cmd.SetContext(ctx)
	return nil
}

// close ends what the command has begun. The command has ended with result.
func (a *app) close(result error) error {
	a.trace.end(result)
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	a.closers = nil
	return errors.Join(errs...)
}

// client connects to the daemon. The connection is closed when the command has ended.
func (a *app) client(ctx context.Context) (*client.Client, error) {
	opts := []client.Option{client.WithConnectTimeout(time.Duration(a.flags.timeout) * time.Second)}
	cfg, err := a.flags.tls.config()
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		opts = append(opts, client.WithTLS(cfg))
	}
	c, err := client.New(a.flags.addr, opts...)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, c.Close)
	a.trace.sendToDaemon(c.Conn())
	if a.flags.wait {
		if err := c.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}
