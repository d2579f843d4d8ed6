package solver

import (
	"context"

	fstypes "github.com/tonistiigi/fsutil/types"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/client/gateway"
	"github.com/openbuildkit/buildkit/solver/op"
	"github.com/openbuildkit/buildkit/solver/schedule"
	"github.com/openbuildkit/buildkit/worker/browse"
)

// reference is an output of a graph in the hands of a frontend. It is lazy: nothing is done for
// it until it is read or evaluated.
type reference struct {
	job  *job
	edge schedule.Edge
	// def is what the frontend has sent, built what policies have made of it.
	def, built *pb.Definition
	// asked is the request that made it.
	asked *asked
}

var _ gateway.Reference = (*reference)(nil)

// Definition returns the LLB of the reference.
func (r *reference) Definition() *pb.Definition { return r.def }

// Evaluate computes the tree.
func (r *reference) Evaluate(ctx context.Context) error {
	return r.use(ctx, func(*cache.Ref) error { return nil })
}

// use calls fn with the tree, nil for the empty one, and again with the tree made anew if fn
// finds it lost.
func (r *reference) use(ctx context.Context, fn func(*cache.Ref) error) error {
	err := r.job.sched.Use(ctx, []schedule.Edge{r.edge}, func(res []schedule.Result) error { return fn(op.Ref(res[0])) })
	return r.job.failures.tell(err)
}

func (r *reference) browser(ctx context.Context) browser {
	return func(fn func(*browse.Tree) error) error { return r.browse(ctx, fn) }
}

// ReadFile returns a file or a part of it.
func (r *reference) ReadFile(ctx context.Context, req gateway.ReadRequest) ([]byte, error) {
	return r.browser(ctx).readFile(req)
}

// ReadDir lists a directory.
func (r *reference) ReadDir(ctx context.Context, req gateway.ReadDirRequest) ([]*fstypes.Stat, error) {
	return r.browser(ctx).readDir(req)
}

// StatFile describes a path.
func (r *reference) StatFile(ctx context.Context, path string) (*fstypes.Stat, error) {
	return r.browser(ctx).statFile(path)
}
