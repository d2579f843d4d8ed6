package solver

import (
	"context"
	"errors"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/frontend"
)

var _ frontend.Runner = (*bridge)(nil)

// RunProgram runs the program of a frontend that is an image.
func (b *bridge) RunProgram(ctx context.Context, p frontend.Program) error {
	root, ok := p.Root.(*reference)
	if !ok {
		return errors.New("the tree of the frontend is not one of this build")
	}
	return root.use(ctx, func(tree *cache.Ref) error {
		acc := cache.Access{Sessions: b.job.sessions, Blobs: b.job.sched}
		return b.job.solver.ops.RunProgram(ctx, tree, acc, b.job.feed, p)
	})
}
