// Package schedule decides what of a graph has to run, runs it once for everybody who wants it,
// and finds the rest in the cache.
//
// It is demand-driven. A Job loads graphs, which makes a node for each vertex, or joins the node
// that another Job made for the same vertex. Nothing happens until a Job wants an output. Then a
// node goes through phases, each begun when first needed and shared by all who wait:
//
//  1. identify: what the op is, and for each input what part of it is read and whether its
//     definition or its content decides
//  2. match by definition: the keys of the inputs, of which none has been executed, are followed
//     in the key store; a hit is a result that loads lazily
//  3. match by content: the inputs that content decides about, and those that are known under no
//     key yet, are had, the content digested, and the store asked again
//  4. run: all inputs are had, and the op runs, unless another node that would yield the same
//     runs already; the result is stored under every key
//
// All states are changed under one lock by advance, which never blocks; what takes time runs in
// goroutines that end by changing a state and calling advance again. Nodes that have changed are
// kept in a queue, not on the stack: chains of many thousand vertices are legal and cost must
// stay linear.
//
// Who waits is a Want: a request of a Job with a context of its own. A Want joins every node that
// works for it. When the last Want leaves a node, its work is cancelled. When the last Job leaves
// a node, the node is gone.
//
// The package knows no caches or workers: ops come from a factory, results are opaque. It is used
// by package solver.
package schedule

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/openbuildkit/buildkit/api/event"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/graph"
)

// Result is one output of a vertex: a handle that is released by whoever holds it.
type Result interface {
	// ID is what the key store remembers; empty is the empty tree, which needs no storing.
	ID() string
	Clone() Result
	Release()
}

// Op is the implementation of a vertex.
type Op interface {
	// Static tells that Identify needs nothing but the definition and may be called with a nil
	// Env.
	Static() bool
	// Identify describes the op.
	Identify(ctx context.Context, env *Env) (*Identity, error)
	// Run yields the outputs. It doesn't keep the inputs, and hands over the outputs.
	Run(ctx context.Context, env *Env, inputs []Result) ([]Result, error)
}

// Identity describes an op to the key store.
type Identity struct {
	// Keys are digests of what is done, equal for ops that do the same. An op without inputs may
	// have several, all of which name its result; others have one.
	Keys []digest.Digest
	// Unstored is set if the result matches nothing by its definition: a tree of a client.
	Unstored bool
	// Inputs describes each input of the vertex, in order.
	Inputs []InputIdentity
	// Pin is what a source was resolved to, for the record.
	Pin string
}

// InputIdentity says how an op reads an input.
type InputIdentity struct {
	// Selector is the part that is read, empty for all. Different selectors never match.
	Selector string
	// Content returns the digest of the part; nil if the definition decides alone.
	Content func(ctx context.Context, env *Env, r Result) (digest.Digest, error)
}

// Loader opens stored results.
type Loader func(ctx context.Context, id string) (Result, error)

// Factory makes the op of a vertex. An error is the fault of the definition.
type Factory func(v *graph.Vertex) (Op, error)

// ErrLost is what ops and readers of results report when a result that was found in the cache
// turns out not to be there.
var ErrLost = cache.ErrLost

// OfRequester tells whether an error is the fault of who asked and not of the vertex: of sessions, see
// session.Faults, or of Jobs, see Env.Check. It reaches the Jobs that it is of, and the others try
// again.
func OfRequester(err error) bool {
	var re *refusedError
	return errors.As(err, &re) || errors.Is(err, session.ErrNoSession) || len(session.Faults(err)) > 0
}

// refusedError says that Jobs may not have what a node makes.
type refusedError struct {
	first error
	jobs  map[*Job]error
}

func (e *refusedError) Error() string { return e.first.Error() }
func (e *refusedError) Unwrap() error { return e.first }

// HoldingError is an error of an op that holds something for those who look into what failed. It is
// released once, when the vertex is forgotten, or at once if nobody is told of the error. One
// that is OfRequester holds nothing.
type HoldingError interface {
	error
	Release()
}

// releaser is what a node gives up when it goes.
type releaser interface{ Release() }

// leftBy returns what an error holds, nil if that is nothing.
func leftBy(err error) releaser {
	var h HoldingError
	if errors.As(err, &h) {
		return h
	}
	return nil
}

// errNobodyWaits is the cause of cancellation of work that nobody waits for any more.
var errNobodyWaits = errors.New("nobody waits for this step any more")

// Edge is an output of a node, as a Job holds it.
type Edge struct {
	node   *node
	output int
}

// Vertex returns the vertex of the edge.
func (e Edge) Vertex() *graph.Vertex { return e.node.vertex }

// Output returns which output of the vertex it is.
func (e Edge) Output() int { return e.output }

// Valid tells whether the edge leads anywhere; the zero Edge does not.
func (e Edge) Valid() bool { return e.node != nil }

func scopeOf(p *progress, dgst digest.Digest) event.Scope { return event.NewScope(p, dgst) }
