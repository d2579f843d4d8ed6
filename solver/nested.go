package solver

import (
	"context"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
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
// for is checked as if it stood in the definition with the build op that builds it.
func (j *job) LoadNested(ctx context.Context, build *graph.Vertex, def *pb.Definition) (op.Nested, error) {
	g, edge, err := j.load(ctx, def, j.policiesOf(build.Policies))
	if err != nil {
		return nil, err
	}
	return &nested{job: j, graph: g, edge: edge}, nil
}

// Graph returns what was loaded.
func (n *nested) Graph() *graph.Graph { return n.graph }

// Tree makes it, or finds it. One that is known to be lost is made anew.
func (n *nested) Tree(ctx context.Context) (tree *cache.Ref, err error) {
	err = n.job.sched.Use(ctx, []schedule.Edge{n.edge}, func(res []schedule.Result) error {
		ref := op.Ref(res[0])
		if err := ref.Lost(); err != nil {
			return err
		}
		tree = ref.Clone()
		return nil
	})
	return tree, err
}
