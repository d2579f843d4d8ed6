// Package op implements the ops of a graph: what each is called in the key store, and how it is
// run on a worker. One file an op.
//
// The ops are made by a Factory for the scheduler, which decides when they run and with which
// inputs. They take slots while they execute, hold cache mounts and secrets while they run, and
// turn results into cache.Refs. They decide nothing about what is cached.
package op

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/session"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker"
)

// Factory makes the ops of one worker.
type Factory struct {
	worker   *worker.Worker
	sessions *session.Manager
	mounts   *cacheMounts
	nesting  *nesting
	limits   LogLimits
	// slots is nil if parallelism is unlimited.
	slots *semaphore.Weighted
}

// NewFactory returns the factory of ops that run on w for clients with sessions.
func NewFactory(w *worker.Worker, sessions *session.Manager, limits LogLimits) *Factory {
	f := &Factory{worker: w, sessions: sessions, mounts: newCacheMounts(w.Cache), nesting: newNesting(), limits: limits}
	if w.MaxParallelism > 0 {
		f.slots = semaphore.NewWeighted(int64(w.MaxParallelism))
	}
	return f
}

// New makes the op of a vertex; it is a schedule.Factory.
func (f *Factory) New(v *graph.Vertex) (schedule.Op, error) {
	switch o := v.Op.Op.(type) {
	case *pb.Op_Source:
		return &sourceOp{f: f, v: v, op: o.Source}, nil
	case *pb.Op_Exec:
		return &execOp{f: f, v: v, op: o.Exec}, nil
	case *pb.Op_File:
		return &fileOp{f: f, v: v, op: o.File}, nil
	case *pb.Op_Build:
		return &buildOp{f: f, v: v, op: o.Build}, nil
	case *pb.Op_Merge:
		return &mergeOp{f: f, v: v, op: o.Merge}, nil
	case *pb.Op_Diff:
		return &diffOp{f: f, v: v, op: o.Diff}, nil
	case *pb.Op_Passthrough:
		return &passthroughOp{v: v, op: o.Passthrough}, nil
	default:
		return nil, &unsupportedError{kind: fmt.Sprintf("%T", o)}
	}
}

// Load opens a stored result; it is a schedule.Loader.
func (f *Factory) Load(ctx context.Context, id string) (schedule.Result, error) {
	if id == "" {
		return Tree{}, nil
	}
	ref, err := f.worker.Cache.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return Tree{ref}, nil
}

// slot takes a slot and returns the function that gives it back.
func (f *Factory) slot(ctx context.Context) (release func(), err error) {
	if f.slots == nil {
		return func() {}, nil
	}
	if err := f.slots.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	return func() { f.slots.Release(1) }, nil
}

// Tree is a cache.Ref as a result of the scheduler. The zero Tree is the empty one.
type Tree struct{ ref *cache.Ref }

// NewTree returns ref, which may be nil, as a result that owns the handle.
func NewTree(ref *cache.Ref) Tree { return Tree{ref} }

// Ref returns the handle of a result, nil for the empty tree. It stays the result's.
func Ref(r schedule.Result) *cache.Ref { return r.(Tree).ref }

// ID returns the id of the cache record, empty for the empty tree.
func (t Tree) ID() string {
	if t.ref == nil {
		return ""
	}
	return t.ref.ID()
}

// Clone returns another handle on the tree.
func (t Tree) Clone() schedule.Result {
	if t.ref == nil {
		return t
	}
	return Tree{t.ref.Clone()}
}

// Release ends the handle.
func (t Tree) Release() {
	if t.ref != nil {
		// Release fails only if the store does, which the next use will tell.
		_ = t.ref.Release(context.Background())
	}
}

// opKey digests what an op does: its kind, its normalised message and its platform.
func opKey(kind string, msg proto.Message, p *pb.Platform) (digest.Digest, error) {
	h := digest.Canonical.Digester()
	opt := proto.MarshalOptions{Deterministic: true}
	_, _ = fmt.Fprintf(h.Hash(), "%s\x00", kind)
	for _, m := range []proto.Message{msg, p} {
		b, err := opt.Marshal(m)
		if err != nil {
			return "", fmt.Errorf("encode %s: %w", kind, err)
		}
		_, _ = fmt.Fprintf(h.Hash(), "%d\x00", len(b))
		_, _ = h.Hash().Write(b)
	}
	return h.Digest(), nil
}

type unsupportedError struct{ kind string }

func (e *unsupportedError) Error() string {
	return "failed to load cache key: no support for " + e.kind
}
