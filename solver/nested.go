package solver

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/op"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// nested is a definition that a step of the job has made.
type nested struct {
	job   *job
	graph *graph.Graph
	edge  schedule.Edge
}

var _ op.Nested = (*nested)(nil)

// LoadNested makes the vertices of a definition that a step has made part of the job. What they ask
// for is checked as if the client had sent it.
func (j *job) LoadNested(ctx context.Context, def *pb.Definition) (op.Nested, error) {
	g, edge, err := j.load(ctx, def, j.policies)
	if err != nil {
		return nil, err
	}
	return &nested{job: j, graph: g, edge: edge}, nil
}

// Graph returns what was loaded.
func (n *nested) Graph() *graph.Graph { return n.graph }

// Result makes it, or finds it.
func (n *nested) Result(ctx context.Context) (schedule.Result, error) {
	return n.job.sched.Result(ctx, n.edge)
}
