package llb

import (
	"context"
	"encoding/json"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// sourceInfo is what the options of a source collect.
type sourceInfo struct {
	constraints opConstraints
	attrs       map[string]string
	caps        []string
	err         error
}

// set sets an attribute and, unless empty, notes the capability that it takes.
func (s *sourceInfo) set(key, value, capID string) {
	if s.attrs == nil {
		s.attrs = map[string]string{}
	}
	s.attrs[key] = value
	s.need(capID)
}

func (s *sourceInfo) need(capID string) {
	if capID != "" {
		s.caps = append(s.caps, capID)
	}
}

// setList sets an attribute to a JSON array.
func (s *sourceInfo) setList(key string, values []string, capID string) {
	if len(values) == 0 {
		return
	}
	dt, err := json.Marshal(values)
	if err != nil {
		s.err = err
		return
	}
	s.set(key, string(dt), capID)
}

// sourceOp reads a tree from outside of the graph.
type sourceOp struct {
	identifier string
	info       sourceInfo
	// perPlatform is set where the platform decides on the content.
	perPlatform bool
}

// state returns the tree that the source yields.
func (s *sourceOp) state() State {
	if s.info.err != nil {
		return failed(s.info.err)
	}
	st := newState(s, 0)
	if s.perPlatform {
		st.settings.platform = s.info.constraints.platform
	}
	return st
}

func (s *sourceOp) plan(ctx context.Context, r *resolver) (*plan, error) {
	return &plan{build: func([]*pb.Input) (*content, error) {
		op := &pb.Op{
			Op:          &pb.Op_Source{Source: &pb.SourceOp{Identifier: s.identifier, Attrs: s.info.attrs}},
			Constraints: r.workerConstraints(&s.info.constraints),
		}
		if s.perPlatform {
			op.Platform = r.opPlatform(s.info.constraints.platform)
		}
		return encode(op, &s.info.constraints, s.info.caps)
	}}, nil
}
