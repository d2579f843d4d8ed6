package op

import (
	"context"
	"errors"
	"sync"

	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/solver/graph"
	"github.com/openbuildkit/buildkit/solver/schedule"
)

// Failure is the error of a vertex with the trees that its op was at work on, for those who look
// into them. The scheduler holds it as long as it knows the vertex, and releases it then.
type Failure struct {
	Err    error
	Vertex *graph.Vertex
	// Inputs and Mounts are what the op began with and what it left. Those of an exec op are by its
	// mounts, Inputs of a file op by its inputs and Mounts by its actions. An entry is nil where
	// there is no tree. If Content is set, Inputs has the one input alone.
	Inputs, Mounts []*FailedTree
	// Action is the file action that failed, Content the input whose content could not be read; each
	// is nil if it was another matter.
	Action, Content *int

	cache *cache.Manager
	trees []*FailedTree
}

var _ schedule.HoldingError = (*Failure)(nil)

// Error returns the text of the cause.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Release gives the trees up.
func (f *Failure) Release() {
	for _, t := range f.trees {
		t.release(f.cache)
	}
}

// failure returns a Failure to put trees into, nil if err is not about the vertex.
func (f *Factory) failure(ctx context.Context, v *graph.Vertex, err error) *Failure {
	if !ofVertex(ctx, err) {
		return nil
	}
	return &Failure{Err: err, Vertex: v, cache: f.worker.Cache}
}

// ofVertex tells whether err is the vertex's own: not that of who asked, nor one that a rerun mends.
func ofVertex(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, cache.ErrLost) && !schedule.OfRequester(err)
}

// hold returns an entry for a tree, nil for the empty one. The handle stays the caller's.
func (f *Failure) hold(ref *cache.Ref) *FailedTree {
	if ref == nil {
		return nil
	}
	return f.add(&FailedTree{ref: ref.Clone()})
}

// take returns an entry for a tree that was being changed. It takes the handle over.
func (f *Failure) take(tree *cache.MutableRef) *FailedTree {
	if tree == nil {
		return nil
	}
	return f.add(&FailedTree{unfinished: tree})
}

func (f *Failure) add(t *FailedTree) *FailedTree {
	f.trees = append(f.trees, t)
	return t
}

// FailedTree is a tree that belongs to a failed vertex.
type FailedTree struct {
	mu sync.Mutex
	// unfinished is committed when somebody asks for the tree: mostly nobody does, and nothing of it
	// is kept.
	unfinished *cache.MutableRef
	ref        *cache.Ref
	committed  bool
}

var errVertexForgotten = errors.New("the failed step is not known any more")

// Open returns the tree. The caller releases it.
func (t *FailedTree) Open(ctx context.Context) (*cache.Ref, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unfinished != nil {
		unfinished := t.unfinished
		t.unfinished = nil
		ref, err := unfinished.Commit(ctx)
		if err != nil {
			return nil, err
		}
		t.ref, t.committed = ref, true
	}
	if t.ref == nil {
		return nil, errVertexForgotten
	}
	return t.ref.Clone(), nil
}

// release ends the handle. What was committed for this alone is found by no key: it goes as well.
func (t *FailedTree) release(trees *cache.Manager) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ctx := context.Background()
	// Releasing fails only if the store does, which the next use will tell.
	_ = t.unfinished.Release(ctx)
	if t.committed {
		_ = trees.Drop(ctx, t.ref.ID())
	}
	_ = t.ref.Release(ctx)
	t.unfinished, t.ref, t.committed = nil, nil, false
}
