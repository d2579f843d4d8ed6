package dockerfile

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/distribution/reference"

	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/parser"
)

// gatewayFrontend runs the frontend of an image.
const gatewayFrontend = "gateway.v0"

// checkCaps fails for a capability that the frontend lacks. It leaves one that may be forwarded
// to forwardSyntax: the frontend that the file names may have it.
func (o *options) checkCaps() error {
	name, forward, ok := o.unsupportedCap()
	if !ok || forward && o.cmdline == "" {
		return nil
	}
	return &status.FrontendCapError{Name: name}
}

// forwardSyntax has the build done by the image that the build argument or the file names, if it
// was not forwarded to this frontend already.
func (b *build) forwardSyntax(ctx context.Context) (*gateway.Result, bool, error) {
	if b.opts.cmdline != "" {
		return nil, false, nil
	}
	if line := b.opts.buildArgs[argSyntax]; line != "" {
		ref, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		res, err := b.forward(ctx, ref, line)
		if err != nil && !hasPlace(err) {
			err = fmt.Errorf("failed with %s%s = %s: %w", optBuildArg, argSyntax, line, err)
		}
		return res, true, err
	}
	ref, line, location, ok := parser.DetectSyntax(b.file.data)
	if !ok {
		if name, _, unknown := b.opts.unsupportedCap(); unknown {
			return nil, true, &status.FrontendCapError{Name: name}
		}
		return nil, false, nil
	}
	res, err := b.forward(ctx, ref, line)
	if hasPlace(err) {
		return res, true, err
	}
	return res, true, parser.WithLocation(err, location)
}

// hasPlace reports whether err says by itself which lines it is about. The line that chose the
// frontend is then no help.
func hasPlace(err error) bool { return len(status.Sources(err)) > 0 }

func (b *build) forward(ctx context.Context, ref, line string) (*gateway.Result, error) {
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return nil, fmt.Errorf("invalid context name %s: %w", ref, err)
	}
	opts := maps.Clone(b.opts.raw)
	if opts == nil {
		opts = map[string]string{}
	}
	opts[optSource] = ref
	opts[optCmdline] = line
	inputs, err := b.client.Inputs(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to get frontend inputs: %w", err)
	}
	return b.client.Solve(ctx, gateway.SolveRequest{
		Frontend:       gatewayFrontend,
		FrontendOpt:    opts,
		FrontendInputs: inputs,
		CacheImports:   b.opts.cacheImports,
	})
}
