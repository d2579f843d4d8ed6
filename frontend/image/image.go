// Package image is the frontend gateway.v0: it runs frontends that are images.
//
// The option "source" names an image. Its program is started in a container of the daemon and
// served the gateway API over its standard streams; what it returns is the result. The package
// knows what such an image and its program may expect: entrypoint, labels, environment, the file
// with its own definition. What a program may ask for is package gateway's; how it is run is the
// Runner's, which the bridge of a daemon is.
//
// Programs come from anywhere and are taken as hostile. One that crashes, hangs, speaks nonsense or
// wants too much memory ends the build that named it, with its last words in the error, and
// nothing else.
package image

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/status"
	client "github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend"
	"github.com/openbuildkit/buildkit/frontend/gateway/peer"
)

// Name is what the frontend is asked for by.
const Name = "gateway.v0"

// builtin is a source that is no image: the Dockerfile frontend of the daemon.
const builtin = "dockerfile.v0"

// Options that the frontend reads. It passes all options on.
const (
	optSource  = "source"
	optCmdline = "cmdline"
	optDevel   = "gateway-devel"
	optCaps    = "frontend.caps"
	optContext = "context:"
)

// Config says which images are run, and how.
type Config struct {
	// AllowedRepositories, if any, are the only ones: names of images without tag or digest.
	AllowedRepositories []string
	// MaxMemory in bytes is what a program may use; 0 is all there is.
	MaxMemory int64
	// IdleTimeout is how long a program may ask for nothing, without a call that is still
	// answered, before it is given up; 0 is DefaultIdleTimeout.
	IdleTimeout time.Duration
}

// DefaultIdleTimeout leaves a program time to work by itself.
const DefaultIdleTimeout = 15 * time.Minute

// Frontend runs frontends that are images. It may be used concurrently.
type Frontend struct {
	cfg Config
	// held are the messages of all programs that are on their way.
	held peer.Total
}

// New returns the frontend.
func New(cfg Config) *Frontend {
	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	return &Frontend{cfg: cfg}
}

// Build is a frontend.Frontend: it runs the image that the options of c name.
func (f *Frontend) Build(ctx context.Context, c client.Client) (*client.Result, error) {
	opts := c.BuildOpts().Opts
	if _, ok := opts[optDevel]; ok {
		return nil, status.New(codes.InvalidArgument, "development gateway is no longer supported")
	}
	source := opts[optSource]
	if source == "" {
		return nil, status.New(codes.InvalidArgument, "no source specified for gateway")
	}
	if isBuiltin(opts) {
		return runBuiltin(ctx, c)
	}
	runner, ok := c.(frontend.Runner)
	if !ok {
		return nil, errors.New("frontends that are images run in the daemon only")
	}
	img, err := f.resolve(ctx, c, source)
	if err != nil {
		return nil, err
	}
	inputs, err := c.Inputs(ctx)
	if err != nil {
		return nil, err
	}
	if err := img.checkCaps(opts[optCaps], len(inputs) > 0); err != nil {
		return nil, err
	}
	p, err := f.program(ctx, c, img)
	if err != nil {
		return nil, err
	}
	return f.run(ctx, c, runner, p)
}

// isBuiltin tells whether the source stands for the daemon's own frontend. What a Dockerfile names
// in its first line is always an image; cmdline tells that it was named there.
func isBuiltin(opts map[string]string) bool {
	if _, forwarded := opts[optCmdline]; forwarded || opts[optSource] != builtin {
		return false
	}
	for key := range opts {
		if key == optContext+builtin || strings.HasPrefix(key, optContext+builtin+"::") {
			return false
		}
	}
	return true
}

func runBuiltin(ctx context.Context, c client.Client) (*client.Result, error) {
	inputs, err := c.Inputs(ctx)
	if err != nil {
		return nil, err
	}
	opts := maps.Clone(c.BuildOpts().Opts)
	delete(opts, optSource)
	return c.Solve(ctx, client.SolveRequest{Frontend: builtin, FrontendOpt: opts, FrontendInputs: inputs})
}
