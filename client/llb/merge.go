package llb

import (
	"context"
	"errors"
	"slices"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Merge lays trees over each other, later ones on top. Empty trees are left out; of a single
// one that remains, the tree itself is the result. Settings are those of the first that
// remains.
func Merge(inputs []State, opts ...ConstraintsOpt) State {
	inputs = slices.Clone(inputs)
	constraints := newOpConstraints(opts)
	return deferUntilKnown(inputs, func(known []State) State {
		known = slices.DeleteFunc(known, State.IsScratch)
		switch len(known) {
		case 0:
			return Scratch()
		case 1:
			return known[0]
		}
		return known[0].withEdge(&mergeOp{known, constraints}, 0)
	})
}

// Diff is what changed from lower to upper. Merged onto another tree, it makes the same changes
// there.
func Diff(lower, upper State, opts ...ConstraintsOpt) State {
	constraints := newOpConstraints(opts)
	return deferUntilKnown([]State{lower, upper}, func(known []State) State {
		if known[0].IsScratch() {
			return known[1]
		}
		return newState(&diffOp{known[0], known[1], constraints}, 0)
	})
}

// deferUntilKnown applies f to states as they turn out to be: now if none is deferred.
func deferUntilKnown(states []State, f func([]State) State) State {
	if !slices.ContainsFunc(states, func(s State) bool { return s.deferred != nil }) {
		return f(slices.Clone(states))
	}
	return State{deferred: &deferred{f: func(ctx context.Context, r *resolver, _ State) (State, error) {
		known := make([]State, len(states))
		for i, s := range states {
			var err error
			if known[i], err = r.resolve(ctx, s); err != nil {
				return State{}, err
			}
		}
		return f(known), nil
	}}}
}

type mergeOp struct {
	inputs      []State
	constraints opConstraints
}

func (o *mergeOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	p := &plan{}
	for _, s := range o.inputs {
		s, err := r.resolve(ctx, s)
		if err != nil {
			return nil, err
		}
		p.inputs = append(p.inputs, s.edge)
	}
	p.build = func(in []*pb.Input) (*content, error) {
		merge := &pb.MergeOp{}
		for i := range in {
			merge.Inputs = append(merge.Inputs, &pb.MergeInput{Input: int64(i)})
		}
		op := &pb.Op{
			Inputs:      in,
			Op:          &pb.Op_Merge{Merge: merge},
			Constraints: r.workerConstraints(&o.constraints),
		}
		return encode(op, &o.constraints, []string{pb.CapMergeOp})
	}
	return p, nil
}

type diffOp struct {
	lower, upper State
	constraints  opConstraints
}

func (o *diffOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	lower, err := r.resolve(ctx, o.lower)
	if err != nil {
		return nil, err
	}
	upper, err := r.resolve(ctx, o.upper)
	if err != nil {
		return nil, err
	}
	p := &plan{inputs: []edge{lower.edge}}
	diff := &pb.DiffOp{Lower: &pb.LowerDiffInput{Input: 0}, Upper: &pb.UpperDiffInput{Input: pb.NoInput}}
	if upper.edge.vertex != nil {
		p.inputs = append(p.inputs, upper.edge)
		diff.Upper.Input = 1
	}
	p.build = func(in []*pb.Input) (*content, error) {
		op := &pb.Op{
			Inputs:      in,
			Op:          &pb.Op_Diff{Diff: diff},
			Constraints: r.workerConstraints(&o.constraints),
		}
		return encode(op, &o.constraints, []string{pb.CapDiffOp})
	}
	return p, nil
}

// Requires makes s wait for deps to be built, though none of their files are seen. The id names
// the op; two with different ids are different steps.
func (s State) Requires(id string, deps []State, opts ...ConstraintsOpt) State {
	if len(deps) == 0 {
		return s
	}
	if id == "" {
		return failed(errors.New("an id is required to require other states"))
	}
	o := &requireOp{id: id, base: s, deps: slices.Clone(deps), constraints: newOpConstraints(opts)}
	return s.withEdge(o, 0)
}

type requireOp struct {
	id          string
	base        State
	deps        []State
	constraints opConstraints
}

func (o *requireOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	p := &plan{}
	for i, s := range append([]State{o.base}, o.deps...) {
		s, err := r.resolve(ctx, s)
		if err != nil {
			return nil, err
		}
		if s.edge.vertex != nil {
			p.inputs = append(p.inputs, s.edge)
		} else if i == 0 {
			return nil, errors.New("an empty tree cannot require other states")
		}
	}
	p.build = func(in []*pb.Input) (*content, error) {
		op := &pb.Op{
			Inputs:      in,
			Op:          &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{Id: o.id, Outputs: []int64{0}}},
			Constraints: r.workerConstraints(&o.constraints),
		}
		return encode(op, &o.constraints, []string{pb.CapPassthroughOp})
	}
	return p, nil
}
