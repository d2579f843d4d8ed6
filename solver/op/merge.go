package op

import (
	"context"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// Kinds of ops in keys.
const (
	mergeKind       = "buildkit.merge.v0"
	diffKind        = "buildkit.diff.v0"
	passthroughKind = "buildkit.passthrough.v0"
)

// combineKey is the identity of an op whose result is made of its inputs as they are, whatever is in
// them and on whatever platform.
func combineKey(kind string, msg proto.Message, inputs int) (*schedule.Identity, error) {
	key, err := opKey(kind, msg, nil)
	if err != nil {
		return nil, err
	}
	return &schedule.Identity{Keys: []digest.Digest{key}, Inputs: make([]schedule.InputIdentity, inputs)}, nil
}

// inputRef returns the tree of an input, nil for the empty one. Graphs have been checked for indices.
func inputRef(inputs []schedule.Result, i int64) *cache.Ref {
	if i == pb.NoInput {
		return nil
	}
	return Ref(inputs[i])
}

// mergeOp lays trees over each other.
type mergeOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.MergeOp
}

// Static is true.
func (o *mergeOp) Static() bool { return true }

// Identify describes the op by the order of its inputs.
func (o *mergeOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	return combineKey(mergeKind, o.op, len(o.v.Inputs))
}

// Run makes the tree, of which nothing is read yet.
func (o *mergeOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	refs := make([]*cache.Ref, len(o.op.Inputs))
	for i, in := range o.op.Inputs {
		refs[i] = inputRef(inputs, in.GetInput())
	}
	ref, err := o.f.worker.Cache.Merge(ctx, refs, cache.Description{Text: o.v.Name}, env.Scope)
	if err != nil {
		return nil, err
	}
	return []schedule.Result{NewTree(ref)}, nil
}
