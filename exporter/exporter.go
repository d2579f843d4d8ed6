// Package exporter is the contract of what a finished build is turned into: files on the
// client's side, an archive, an image.
//
// A Factory reads an exporter's attributes once, before the build begins, so that a mistake in
// them costs nobody a build; what it returns is an Instance for one build. When the result is
// there, Export writes it out and answers with what the client is to know. Before it does what
// must not happen unless every exporter of the build is ready, such as pushing, it waits for the
// others. Exporters get trees and give descriptors; how the trees came to be is not theirs to know.
package exporter

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
)

// Factory reads attributes. It is a type of exporter, such as local or oci. Errors name the
// attribute. The version decides defaults; it is never 0.
type Factory interface {
	Resolve(attrs map[string]string, version compat.Version) (Instance, error)
}

// Instance is an exporter of one build.
type Instance interface {
	// Name is what is shown of the export: "exporting to client directory".
	Name() string
	// Export writes the result out. The response is added to that of the build, over those of
	// exporters before it in the request. It may be called once more if a tree of the result is
	// lost and has been built anew.
	Export(ctx context.Context, res *Result, env Env) (response map[string]string, err error)
}

// Result is what a build yielded. The handles stay the caller's.
type Result struct {
	// Ref is the only tree, nil for the empty one; not used if Refs is set.
	Ref *cache.Ref
	// Refs are the trees by platform id. A nil value is the empty tree.
	Refs map[string]*cache.Ref
	// Metadata is that of the frontend; see the Key constants.
	Metadata map[string][]byte
	// Attestations are those of each platform id.
	Attestations map[string][]Attestation
}

// Env is what an exporter may use of the build.
type Env struct {
	// ID is the exporter's position in the request.
	ID       int
	Sessions session.Group
	Access   cache.Access
	// Scope is the vertex of the export.
	Scope event.Scope
	// Platform is the one of the daemon, for results that do not say.
	Platform ocispec.Platform
	// Version is that of the daemon.
	Version string
	// Made, if not nil, is told of an image that was made and can be read until it returns.
	Made func(ctx context.Context, from content.Provider, image ocispec.Descriptor)
	// Others waits for the other exporters, nil if there are none; see AwaitOthers.
	Others func(context.Context) error
}

// AwaitOthers returns nil when every exporter of the build has called it or has returned, an error
// if one of them has failed. What cannot be taken back comes after it.
func (e Env) AwaitOthers(ctx context.Context) error {
	if e.Others == nil {
		return nil
	}
	return e.Others(ctx)
}

// Registry finds the exporter of a type.
type Registry map[string]Factory

// Resolve reads the attributes of an exporter of a type. Errors are InvalidArgument if they say
// nothing else.
func (r Registry) Resolve(typ string, attrs map[string]string, version compat.Version) (Instance, error) {
	f := r[typ]
	if f == nil {
		return nil, status.New(codes.InvalidArgument, fmt.Sprintf("exporter %q could not be found", typ))
	}
	inst, err := f.Resolve(attrs, version)
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.WithCode(err, codes.InvalidArgument)
	}
	return inst, err
}
