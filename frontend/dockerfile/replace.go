package dockerfile

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/client/llb"
	"github.com/openbuildkit/buildkit/frontend/dockerfile/lower"
)

// imageScheme begins the value of a named context that is an image of a registry.
const imageScheme = "docker-image"

// Context is the tree that a named context puts in the place of an image.
type Context struct {
	State llb.State
	// Config is the image configuration as JSON; nil for a tree without one.
	Config []byte
	// Image is the reference and Digest the digest of an image of a registry; empty for others.
	Image  string
	Digest digest.Digest
}

// NamedContext returns what a named context of the build, if there is one of that name, puts in the
// place of the image name, for platform p.
func NamedContext(ctx context.Context, c gateway.Client, name string, p ocispec.Platform) (Context, bool, error) {
	bo := c.BuildOpts()
	named := lower.NamedContexts(withPrefix(bo.Opts, optContext)).Lookup(name, p)
	if named == nil {
		return Context{}, false, nil
	}
	mode, err := llb.ParseResolveMode(bo.Opts[optResolveMode])
	if err != nil {
		return Context{}, false, err
	}
	b := &build{client: c, file: &file{}, opts: &options{
		raw:         bo.Opts,
		sessions:    withPrefix(bo.Opts, optLocalSession),
		sessionID:   bo.SessionID,
		resolveMode: mode,
	}}
	src, err := b.namedContext(ctx, &lower.Request{Context: named, Platform: p})
	if err != nil {
		return Context{}, false, err
	}
	out := Context{State: src.State, Config: src.Config, Digest: src.Digest}
	if ref, ok := strings.CutPrefix(named.Spec, imageScheme+":"); ok {
		out.Image = strings.TrimPrefix(ref, "//")
	}
	return out, true, nil
}
