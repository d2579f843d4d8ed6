package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"time"

	"github.com/containerd/log"
	"github.com/moby/sys/userns"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/wire"
	"github.com/openbuildkit/buildkit/cmd/internal/logging"
	"github.com/openbuildkit/buildkit/cmd/internal/version"
)

// newCommand returns the command with its arguments, not executed yet. It calls serve with the
// configuration that comes of them.
func newCommand(args []string, getenv func(string) string, serve func(context.Context, *config.Config, *options) error) *cobra.Command {
	host := config.Host{Rootless: userns.RunningInUserNS(), Getenv: getenv}
	cmd := &cobra.Command{
		Use:               "buildkitd",
		Short:             "build daemon",
		Args:              cobra.NoArgs,
		Version:           version.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.SetVersionTemplate(version.Line("buildkitd") + "\n")
	cmd.SetArgs(args)
	opts := newOptions(cmd.Flags(), host)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := configure(opts, host, getenv)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), cfg, opts)
	}
	return cmd
}

// configure puts flags, file and defaults together and sets up the log.
func configure(opts *options, host config.Host, getenv func(string) string) (*config.Config, error) {
	host.Rootless = opts.rootless
	path := opts.configPath
	if path == "" {
		path = host.ConfigPath()
	}
	cfg, unknown, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	if opts.configStrict && len(unknown) > 0 {
		errs := make([]error, len(unknown))
		for i, key := range unknown {
			errs[i] = errors.New(key.String())
		}
		return nil, errors.Join(errs...)
	}
	if err := opts.apply(cfg, getenv); err != nil {
		return nil, err
	}
	cfg.SetDefaults(host)
	if err := logging.SetUp(cfg.Log.Format, cfg.Log.Level); err != nil {
		return nil, err
	}
	for _, key := range unknown {
		log.L.Warn(key.String())
	}
	if cfg.Trace {
		log.L.Warn("trace is deprecated: use log level trace")
	}
	return cfg, nil
}

// run is the daemon: it serves until a signal says to stop. A second signal ends running builds at once, a third
// one the process.
func run(ctx context.Context, cfg *config.Config, opts *options) error {
	if os.Geteuid() != 0 {
		return errors.New("rootless mode requires to be executed as the mapped root in a user namespace; you may use RootlessKit for setting up the namespace")
	}
	stop, hurry, release := onSignals(ctx)
	defer release()
	return wire.Run(stop, cfg, wire.Options{ShutdownTimeout: opts.shutdownTimeout, Hurry: hurry})
}

// onSignals returns a context that ends with the first signal and a channel that is closed by the
// second. After that signals have their usual effect.
func onSignals(ctx context.Context) (stop context.Context, hurry <-chan struct{}, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	stop, end := context.WithCancelCause(ctx)
	second, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer signal.Stop(signals)
		if !await(signals, done) {
			return
		}
		end(errors.New("the daemon was told to stop"))
		// Shells and service managers send one signal twice: to the process and to its group.
		const echo = 200 * time.Millisecond
		for first := time.Now(); time.Since(first) < echo; {
			if !await(signals, done) {
				return
			}
		}
		close(second)
	}()
	return stop, second, func() {
		close(done)
		end(nil)
	}
}

// await returns true when there is a signal and false when done is closed.
func await(signals <-chan os.Signal, done <-chan struct{}) bool {
	select {
	case s := <-signals:
		log.L.Infof("got signal %v", s)
		return true
	case <-done:
		return false
	}
}
