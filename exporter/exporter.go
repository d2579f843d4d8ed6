// Package exporter is the contract of what a finished build is turned into: files on the
// client's side, an archive, an image.
//
// A Factory reads an exporter's attributes once, before the build begins, so that a mistake in
// them costs nobody a build; what it returns is an Instance for one build. When the result is
// there, Export writes it out and answers with what the client is to know. What must not happen
// before every exporter of a build is ready, such as pushing, it leaves in the function that it
// returns. Exporters get trees and give descriptors; how the trees came to be is not theirs to
// know.
package exporter

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
)

// Factory reads attributes. It is a type of exporter, such as local or oci. Errors name the
// attribute.
type Factory interface {
	Resolve(attrs map[string]string) (Instance, error)
}

// Instance is an exporter of one build.
type Instance interface {
	// Name is what is shown of the export: "exporting to client directory".
	Name() string
	// Export writes the result out. The response is added to that of the build; finalize, if not
	// nil, is called once all exporters of the build are done.
	Export(ctx context.Context, res *Result, env Env) (response map[string]string, finalize func(context.Context) error, err error)
}

// Result is what a build yielded. The handles stay the caller's.
type Result struct {
	// Ref is the only tree, nil for the empty one; not used if Refs is set.
	Ref *cache.Ref
	// Refs are the trees by platform id. A nil value is the empty tree.
	Refs map[string]*cache.Ref
	// Metadata is that of the frontend; see the Key constants.
	Metadata map[string][]byte
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
	// Compatibility is the version of behaviour that the build asked for; 0 is the newest.
	Compatibility int
}

// Registry finds the exporter of a type.
type Registry map[string]Factory

// Resolve reads the attributes of an exporter of a type.
func (r Registry) Resolve(typ string, attrs map[string]string) (Instance, error) {
	f := r[typ]
	if f == nil {
		return nil, status.New(codes.InvalidArgument, fmt.Sprintf("exporter %q could not be found", typ))
	}
	return f.Resolve(attrs)
}
