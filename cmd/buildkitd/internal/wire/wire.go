// Package wire puts a daemon together: it turns the configuration into objects, starts them, and
// stops them again. The order of both is in Run, assemble and serve, and nowhere else.
//
// Of the packages of the daemon it is the one that knows all the others. It holds no logic of
// builds: what a value of the configuration means is said by the package that takes it.
package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/containerd/log"
	sddaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/config"
	"github.com/openbuildkit/buildkit/cmd/buildkitd/internal/control"
	"github.com/openbuildkit/buildkit/solver/key"
)

// Options are what a daemon is told besides its configuration.
type Options struct {
	// ShutdownTimeout is how long running builds may go on when the daemon is to stop.
	ShutdownTimeout time.Duration
	// Hurry, when closed, ends that time.
	Hurry <-chan struct{}
}

// callGrace is how long calls may last that are left when no build is running any more.
const callGrace = 2 * time.Second

// Run serves until ctx ends or something fails that the daemon cannot do without. It returns when
// all builds have ended and everything is closed; the error is nil if ctx ended.
func Run(ctx context.Context, cfg *config.Config, opt Options) error {
	if err := check(cfg); err != nil {
		return err
	}
	setUpCgroups(ctx)
	// Clients that come from here on wait until the daemon serves.
	open, err := listen(cfg.GRPC)
	if err != nil {
		return err
	}
	defer open.close()
	var debug net.Listener
	if addr := cfg.GRPC.DebugAddress; addr != "" {
		if debug, err = listenDebug(addr); err != nil {
			return err
		}
		defer listeners{debug}.close()
	}
	state, err := openState(cfg.Root)
	if err != nil {
		return err
	}
	d := &daemon{}
	d.onClose(state.close)
	defer func() {
		if cerr := d.close(); cerr != nil {
			log.G(ctx).WithError(cerr).Error("the daemon did not close well")
		}
	}()
	if err := d.assemble(ctx, cfg, state); err != nil {
		return err
	}
	return d.serve(ctx, open, debug, opt)
}

// builder is the solver as far as its life is concerned.
type builder interface {
	Run(ctx context.Context) error
	Drain(ctx context.Context)
	Busy() int
}

// daemon is what assemble made.
type daemon struct {
	solver builder
	server *control.Server
	// durations are those of builds.
	durations *prometheus.HistogramVec
	keys      *key.Store
	// background are the parts that run beside the solver until the daemon stops.
	background []func(ctx context.Context) error
	closers    []func() error
}

// onClose has fn called by close, before all that was given earlier.
func (d *daemon) onClose(fn func() error) { d.closers = append(d.closers, fn) }

func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	return errors.Join(errs...)
}

// serve starts everything, waits, and stops it in the reverse order.
func (d *daemon) serve(ctx context.Context, open listeners, debug net.Listener, opt Options) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, running := errgroup.WithContext(life)
	group.Go(func() error { return d.solver.Run(running) })
	for _, run := range d.background {
		group.Go(func() error { return run(running) })
	}
	if debug != nil {
		serveDebug(running, group, debug, newDebugServer(debugParts{busy: d.solver.Busy, durations: d.durations, keys: d.keys}))
	}
	for _, lis := range open {
		group.Go(func() error {
			if err := d.server.Serve(lis); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		log.G(ctx).Infof("running server on %s", lis.Addr())
	}
	notify(ctx, sddaemon.SdNotifyReady)

	select {
	case <-ctx.Done():
	case <-running.Done():
	}
	notify(ctx, sddaemon.SdNotifyStopping)
	// Clients that come now are for the next daemon; those that are here are served.
	open.close()
	d.drain(opt)
	d.stopServer(opt)
	end()
	return group.Wait()
}

// drain refuses new builds and lets the running ones go on for a while. Calls that belong to them
// are still served.
func (d *daemon) drain(opt Options) {
	d.server.Health.Shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), opt.ShutdownTimeout)
	defer cancel()
	stop := whenClosed(opt.Hurry, cancel)
	defer stop()
	d.solver.Drain(ctx)
}

// stopServer ends the calls that are left: those of clients that watch or keep a session open.
func (d *daemon) stopServer(opt Options) {
	patience := time.AfterFunc(callGrace, d.server.Stop)
	defer patience.Stop()
	stop := whenClosed(opt.Hurry, d.server.Stop)
	defer stop()
	d.server.GracefulStop()
}

// whenClosed calls fn when c is closed, unless stop is called before.
func whenClosed(c <-chan struct{}, fn func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-c:
			fn()
		case <-done:
		}
	}()
	return func() { close(done) }
}

func serveDebug(ctx context.Context, group *errgroup.Group, lis net.Listener, srv *http.Server) {
	group.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	group.Go(func() error {
		if err := srv.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// notify tells systemd, if it asked.
func notify(ctx context.Context, state string) {
	if _, err := sddaemon.SdNotify(false, state); err != nil {
		log.G(ctx).WithError(err).Warnf("tell systemd %s", state)
	}
}
