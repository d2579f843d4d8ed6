package solver

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	errdefspb "github.com/openbuildkit/buildkit/api/errdefs"
	"github.com/openbuildkit/buildkit/api/status"
	"github.com/openbuildkit/buildkit/cache"
	"github.com/openbuildkit/buildkit/solver/op"
)

// maxToldOp bounds the op in the record of a failure, in bytes: records travel in headers, which
// clients read up to some MiB. A larger one is left out.
const maxToldOp = 1 << 20

// failures are what failed steps left, under the ids that a job's frontends know. The trees are the
// steps' and last as long as the job holds them, which is to its end.
type failures struct {
	mu    sync.Mutex
	told  map[*op.Failure]*errdefspb.Solve
	trees map[string]*op.FailedTree
}

// tell returns err with the record of the step that failed, if it is about one.
func (f *failures) tell(err error) error {
	var failure *op.Failure
	var told *status.SolveError
	if !errors.As(err, &failure) || errors.As(err, &told) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	solve := f.told[failure]
	if solve == nil {
		solve = f.record(failure)
		if f.told == nil {
			f.told = map[*op.Failure]*errdefspb.Solve{}
		}
		f.told[failure] = solve
	}
	return &status.SolveError{Solve: solve, Err: err}
}

// record describes a failure. The caller holds mu.
func (f *failures) record(failure *op.Failure) *errdefspb.Solve {
	v := failure.Vertex
	solve := &errdefspb.Solve{Op: v.Op, Description: v.Description}
	if proto.Size(v.Op) > maxToldOp {
		solve.Op = nil
	}
	switch {
	case failure.Action != nil:
		solve.Subject = &errdefspb.Solve_File{File: &errdefspb.FileAction{Index: int64(*failure.Action)}}
	case failure.Content != nil:
		solve.Subject = &errdefspb.Solve_Cache{Cache: &errdefspb.ContentCache{Index: int64(*failure.Content)}}
	}
	ids := map[*op.FailedTree]string{}
	name := func(trees []*op.FailedTree) (names []string) {
		for _, t := range trees {
			if t != nil && ids[t] == "" {
				ids[t] = f.keep(t)
			}
			names = append(names, ids[t])
		}
		return names
	}
	solve.InputIDs, solve.MountIDs = name(failure.Inputs), name(failure.Mounts)
	return solve
}

// keep gives a tree an id that nobody can guess.
func (f *failures) keep(t *op.FailedTree) string {
	id := strings.ToLower(rand.Text())
	if f.trees == nil {
		f.trees = map[string]*op.FailedTree{}
	}
	f.trees[id] = t
	return id
}

// find returns the tree of an id.
func (f *failures) find(id string) (*op.FailedTree, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trees[id]
	if t == nil {
		return nil, status.New(codes.NotFound, "return reference "+id+" not found")
	}
	return t, nil
}

// openTrees opens trees and returns the function that releases them.
func openTrees(ctx context.Context, trees []*op.FailedTree) (refs []*cache.Ref, release func(), err error) {
	release = func() {
		for _, r := range refs {
			_ = r.Release(context.WithoutCancel(ctx)) // fails only if the store does
		}
	}
	for _, t := range trees {
		ref, err := t.Open(ctx)
		if err != nil {
			release()
			return nil, nil, err
		}
		refs = append(refs, ref)
	}
	return refs, release, nil
}
