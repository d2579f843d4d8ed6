// Package source is the contract of what a build starts from: images, contexts, git repositories,
// files of the web.
//
// A scheme has a Source. Parse reads an op once, at the edge, into an Identifier; Resolve turns
// that into an Instance: a name with the content it stands for at this moment (a digest, a
// commit), pinned for one build. The instance gives its keys and fetches its tree. Nothing here
// decides whether a fetch is needed: the solver asks for keys first and for the tree only on a
// miss.
package source

import (
	"context"
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/event"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/cache/blob"
	"github.com/openbuildkit/buildkit/session"
)

// Identifier is a parsed source op. String returns it as it is shown to users, without secrets.
type Identifier interface {
	Scheme() string
	String() string
}

// Source is the implementation of one or more schemes.
type Source interface {
	Schemes() []string
	// Parse reads ref, what follows the scheme, with the op's attributes. platform is never nil.
	Parse(scheme, ref string, attrs map[string]string, platform ocispec.Platform) (Identifier, error)
	// Instance prepares a source for one build. It does not go to the network; Resolve does.
	Instance(id Identifier, env Env) (Instance, error)
}

// Env is what a source may use of the build it works for.
type Env struct {
	// Sessions is the live set of sessions of the builds that wait.
	Sessions session.Group
	// Scope is the vertex of the source.
	Scope event.Scope
	// Blobs takes the places that lazy blobs can be fetched from.
	Blobs *blob.Sources
	// Memo remembers what names stood for when the build first asked; nil remembers nothing.
	Memo *Memo
	// Compat is the version of behaviour that was asked for, if the source has another since; 0
	// is the current one.
	Compat compat.Version
}

// Instance is a source in one build. Its methods are called one after the other. What Resolve
// found holds for the life of the instance: a tag or ref that moves meanwhile is not followed.
type Instance interface {
	// Key returns the key of round n, counted from 0, cheap ones first. Equal keys mean equal
	// trees. done is true if there is no further round.
	Key(ctx context.Context, n int) (k Key, done bool, err error)
	// Fetch returns the tree, lazy where possible; nil is the empty tree. Key of round 0 was
	// called before.
	Fetch(ctx context.Context) (*cache.Ref, error)
}

// Key identifies the content of a source.
type Key struct {
	// Value is an opaque string.
	Value string
	// Pin is what the name was resolved to, as provenance tells it: a digest, a commit.
	Pin string
	// Session is true if the key holds within one session only: trees of such a source match by
	// content, through the steps that read them.
	Session bool
}

// Registry finds the Source of a scheme.
type Registry map[string]Source

// NewRegistry returns the registry of sources. Two for one scheme panic.
func NewRegistry(sources ...Source) Registry {
	r := Registry{}
	for _, s := range sources {
		for _, scheme := range s.Schemes() {
			if _, dup := r[scheme]; dup {
				panic("source: two sources for scheme " + scheme)
			}
			r[scheme] = s
		}
	}
	return r
}

// Parse reads a source op. Errors name the identifier.
func (r Registry) Parse(op *pb.SourceOp, platform ocispec.Platform) (Source, Identifier, error) {
	scheme, ref, ok := strings.Cut(op.GetIdentifier(), "://")
	if !ok {
		return nil, nil, &IdentifierError{fmt.Sprintf("failed to parse %s: invalid", op.GetIdentifier()), codes.InvalidArgument}
	}
	s := r[scheme]
	if s == nil {
		return nil, nil, &IdentifierError{fmt.Sprintf("unknown scheme %s: not found", scheme), codes.NotFound}
	}
	id, err := s.Parse(scheme, ref, op.GetAttrs(), platform)
	return s, id, err
}

// IdentifierError is the mistake of an identifier that no source can be found for.
type IdentifierError struct {
	text string
	code codes.Code
}

// Error returns the text that clients know.
func (e *IdentifierError) Error() string { return e.text }

// Code returns the code of the gRPC status.
func (e *IdentifierError) Code() codes.Code { return e.code }

// ParseRecordType reads the attribute that says what a tree is kept as; empty is the usual type.
func ParseRecordType(v string) (cache.RecordType, error) {
	known := []cache.RecordType{
		cache.Internal, cache.Frontend, cache.LocalSource, cache.GitCheckout, cache.CacheMount, cache.Regular,
	}
	if t := cache.RecordType(v); v == "" || slices.Contains(known, t) {
		return t, nil
	}
	return "", fmt.Errorf("invalid record type %q", v)
}
