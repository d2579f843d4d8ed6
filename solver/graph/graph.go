// Package graph turns an LLB definition, as it came from a client, into checked vertices.
//
// Load reads every op once, refuses what is malformed with the texts that clients know, and
// returns the vertices that the result needs, inputs before their users. What it returns is
// immutable and may be shared. The package knows nothing of keys, caches or workers.
package graph

import (
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/openbuildkit/buildkit/api/compat"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Graph is a loaded definition.
type Graph struct {
	// Vertices are in an order in which inputs come before the vertices that use them.
	Vertices []*Vertex
	// Root is the wanted output.
	Root Edge
	// Definition is what was loaded, with what was amended as it is now and under its new digest. It must not be
	// changed.
	Definition *pb.Definition
}

// Edge is one output of a vertex.
type Edge struct {
	Vertex *Vertex
	Output int
}

// Vertex is one op of a graph.
type Vertex struct {
	// Digest is that of the bytes the client sent; it names the vertex in progress and errors.
	Digest digest.Digest
	// Op has its platform filled in and normalised. It must not be changed.
	Op       *pb.Op
	Platform ocispec.Platform
	Inputs   []Edge
	// Name is what is shown.
	Name          string
	IgnoreCache   bool
	ProgressGroup *pb.ProgressGroup
	Resources     *pb.LinuxResources
	Description   map[string]string
	// Sources say where in the user's files the vertex stands; nil if unknown.
	Sources []Source
	// Sharing tells which builds may share the vertex: no more than may share those it descends from.
	Sharing Sharing
	// Policies names the source policies that hold for the definition which a build op makes. It is
	// empty if there are none, and for all other ops.
	Policies string
	// Compat is the version of behaviour that was asked for, if what the vertex yields has another
	// form since: builds of different versions must not share it. It is 0 for all others.
	Compat compat.Version
}

// Sharing is a circle of builds.
type Sharing uint8

// The circles, the widest first.
const (
	ShareAll Sharing = iota
	// ShareSession is for local sources without a session of their own: they read the files of
	// whichever client asks.
	ShareSession
	// ShareNone is for build ops: what they build is checked against, and becomes part of, one build.
	ShareNone
)

// Source is a part of a file that a vertex was made from.
type Source struct {
	Info   *pb.SourceInfo
	Ranges []*pb.Range
}
