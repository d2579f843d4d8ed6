package llb

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// FromDefinition returns the State that a definition yields. Its ops are written again byte for
// byte, with their metadata and source locations. The State has no settings but the platform of
// the op. Def is kept and must not be changed.
func FromDefinition(def *pb.Definition) (State, error) {
	if def == nil || len(def.Def) == 0 {
		return Scratch(), nil
	}
	d, last, err := parseDefinition(def)
	if err != nil {
		return State{}, err
	}
	if len(last.Inputs) == 0 {
		return State{}, errors.New("invalid LLB with no inputs on last vertex")
	}
	e, err := d.edge(last.Inputs[0])
	if err != nil {
		return State{}, err
	}
	s := State{edge: e}
	if p := d.ops[digest.Digest(last.Inputs[0].Digest)].op.Platform; p != nil {
		spec := p.Spec()
		s.settings.platform = &spec
	}
	return s, nil
}

// definition is a definition whose ops are vertices.
type definition struct {
	def *pb.Definition
	// sources are def's source files, so that ops of one definition share them.
	sources []*SourceMap
	ops     map[digest.Digest]*definitionOp
}

// parseDefinition reads all ops and returns them with the last entry.
func parseDefinition(def *pb.Definition) (*definition, *pb.Op, error) {
	d := &definition{def: def, ops: make(map[digest.Digest]*definitionOp, len(def.Def))}
	for _, info := range def.GetSource().GetInfos() {
		if info == nil {
			return nil, nil, errors.New("invalid nil source info")
		}
		d.sources = append(d.sources, &SourceMap{info: info})
	}
	var last *pb.Op
	for _, dt := range def.Def {
		last = &pb.Op{}
		if err := proto.Unmarshal(dt, last); err != nil {
			return nil, nil, fmt.Errorf("failed to parse llb proto op: %w", err)
		}
		dgst := digest.FromBytes(dt)
		d.ops[dgst] = &definitionOp{def: d, digest: dgst, bytes: dt, op: last}
	}
	for _, op := range d.ops {
		op.inputs = make([]edge, len(op.op.Inputs))
		for i, in := range op.op.Inputs {
			e, err := d.edge(in)
			if err != nil {
				return nil, nil, err
			}
			op.inputs[i] = e
		}
	}
	return d, last, nil
}

func (d *definition) edge(in *pb.Input) (edge, error) {
	if in == nil {
		return edge{}, errors.New("invalid nil input")
	}
	op, ok := d.ops[digest.Digest(in.Digest)]
	if !ok {
		return edge{}, fmt.Errorf("invalid missing input digest %s", in.Digest)
	}
	if in.Index < 0 {
		return edge{}, fmt.Errorf("invalid output index %d of %s", in.Index, in.Digest)
	}
	return edge{op, in.Index}, nil
}

// definitionOp is an op that was serialized elsewhere.
type definitionOp struct {
	def    *definition
	digest digest.Digest
	bytes  []byte
	op     *pb.Op
	inputs []edge
}

func (o *definitionOp) plan(context.Context, *resolver) (*plan, error) {
	return &plan{inputs: o.inputs, build: func([]*pb.Input) (*content, error) {
		md := &pb.OpMetadata{}
		if m := o.def.def.Metadata[string(o.digest)]; m != nil {
			md = proto.CloneOf(m)
		}
		locations, err := o.locations()
		return &content{bytes: o.bytes, metadata: md, locations: locations}, err
	}}, nil
}

func (o *definitionOp) locations() ([]*sourceLocation, error) {
	var out []*sourceLocation
	for _, l := range o.def.def.GetSource().GetLocations()[string(o.digest)].GetLocations() {
		if l.SourceIndex < 0 || int(l.SourceIndex) >= len(o.def.sources) {
			return nil, fmt.Errorf("invalid source index %d of %s", l.SourceIndex, o.digest)
		}
		out = append(out, &sourceLocation{o.def.sources[l.SourceIndex], l.Ranges})
	}
	return out, nil
}
