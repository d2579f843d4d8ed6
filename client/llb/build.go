package llb

import (
	"context"
	"errors"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Build is the tree that a definition yields which is a file of from: it is built once from is. The
// file is named buildkit.llb.definition, or filename if that is not empty; it holds a message
// pb.Definition.
func Build(from State, filename string, opts ...ConstraintsOpt) State {
	o := &buildOp{from: from, filename: filename, constraints: newOpConstraints(opts)}
	return newState(o, 0)
}

var errEmptyBuild = errors.New("an empty tree holds no definition to build")

type buildOp struct {
	from        State
	filename    string
	constraints opConstraints
}

func (o *buildOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	from, err := r.resolve(ctx, o.from)
	if err != nil {
		return nil, err
	}
	if from.edge.vertex == nil {
		return nil, errEmptyBuild
	}
	p := &plan{inputs: []edge{from.edge}}
	build := &pb.BuildOp{
		Builder: pb.LLBBuilder,
		Inputs:  map[string]*pb.BuildInput{pb.LLBDefinition: {Input: 0}},
	}
	var caps []string
	if o.filename != "" {
		build.Attrs = map[string]string{pb.AttrBuildOpFilename: o.filename}
		caps = append(caps, pb.CapSourceBuildOpFilename)
	}
	p.build = func(in []*pb.Input) (*content, error) {
		op := &pb.Op{
			Inputs:      in,
			Op:          &pb.Op_Build{Build: build},
			Constraints: r.workerConstraints(&o.constraints),
		}
		return encode(op, &o.constraints, caps)
	}
	return p, nil
}
