package op

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// passthroughOp yields some of its inputs once all of them have been made.
type passthroughOp struct {
	v  *graph.Vertex
	op *pb.PassthroughOp
}

// Static is true.
func (o *passthroughOp) Static() bool { return true }

// Identify describes the op by its id and by what it yields.
func (o *passthroughOp) Identify(context.Context, *schedule.Env) (*schedule.Identity, error) {
	return combineKey(passthroughKind, o.op, len(o.v.Inputs))
}

// Run yields the inputs.
func (o *passthroughOp) Run(_ context.Context, _ *schedule.Env, inputs []schedule.Result) ([]schedule.Result, error) {
	for _, in := range o.op.Outputs {
		// Nobody below looks at the trees.
		if err := Ref(inputs[in]).Lost(); err != nil {
			return nil, err
		}
	}
	outs := make([]schedule.Result, len(o.op.Outputs))
	for i, in := range o.op.Outputs {
		outs[i] = inputs[in].Clone()
	}
	return outs, nil
}
