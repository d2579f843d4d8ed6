package op

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// diffOp yields what one tree changes in another.
type diffOp struct {
	f  *Factory
	v  *graph.Vertex
	op *pb.DiffOp
}

// Static is true.
func (o *diffOp) Static() bool { return true }

// Identify describes the op by which of its inputs is which.
func (o *diffOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	return combineKey(diffKind, o.op, len(o.v.Inputs))
}

// Run makes the tree, of which nothing is read yet.
func (o *diffOp) Run(ctx context.Context, env *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	lower, upper := inputRef(inputs, o.op.Lower.GetInput()), inputRef(inputs, o.op.Upper.GetInput())
	ref, err := o.f.worker.Cache.Diff(ctx, lower, upper, cache.Description{Text: o.v.Name}, env.Scope)
	if err != nil {
		return nil, err
	}
	return []schedule.Result{NewTree(ref)}, nil
}
