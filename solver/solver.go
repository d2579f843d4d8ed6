// Package solver is the conductor: it takes a request for a build, runs it as a Job, and hands
// back what was asked for.
//
// A Job admits the request (sessions, entitlements), runs its frontend through a Bridge or its
// definition directly, exports the result and releases everything in reverse order. The graph of
// what is to be done is package graph, who identifies a vertex is package key, who decides what
// runs is package schedule, who runs it is package op. The solver is used by the daemon's control
// service; nothing below it knows it.
package solver

import (
	"github.com/openbuildkit/buildkit/client/gateway"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Request asks for one build.
type Request struct {
	// Ref names the build, chosen by the client; it is also the build id of its gateway calls.
	Ref string
	// Session is the id of the client's session.
	Session string
	// Of Definition and Frontend at most one is set. With neither, Build produces the result.
	Definition     *pb.Definition
	Frontend       string
	FrontendOpt    map[string]string
	FrontendInputs map[string]*pb.Definition
	// Build is a frontend that runs elsewhere, on the side of the client.
	Build gateway.BuildFunc

	Exporters    []Exporter
	CacheExports []RemoteCache
	CacheImports []RemoteCache
	// Entitlements are the grants of the client, as it spelled them.
	Entitlements []string
	// Internal builds are not recorded.
	Internal bool
}

// Exporter names an exporter and its attributes. Its id is its position in the request.
type Exporter struct {
	Type  string
	Attrs map[string]string
}

// RemoteCache names a remote cache and its attributes.
type RemoteCache struct {
	Type  string
	Attrs map[string]string
}

// Response is what a finished build tells its client.
type Response struct {
	Exporter map[string]string
}
