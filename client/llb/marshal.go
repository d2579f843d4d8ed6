package llb

import (
	"context"
	_ "crypto/sha256" // package digest has its algorithms from whoever uses it
	"fmt"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// vertex is an op that is not yet serialized. Vertices are compared by identity.
type vertex interface {
	// plan resolves what the op reads.
	plan(ctx context.Context, r *resolver) (*plan, error)
}

// plan is an op whose inputs are known but not yet serialized.
type plan struct {
	inputs []edge
	// build serializes the op. in has the serialized form of each of inputs.
	build func(in []*pb.Input) (*content, error)
}

// content is a serialized op.
type content struct {
	bytes     []byte
	metadata  *pb.OpMetadata
	locations []*sourceLocation
}

// PlaceError is an error of an op that was written in a file.
type PlaceError struct {
	Info   *pb.SourceInfo
	Ranges []*pb.Range
	Err    error
}

func (e *PlaceError) Error() string { return e.Err.Error() }
func (e *PlaceError) Unwrap() error { return e.Err }

// encode serializes an op that was told c and uses caps. It fails if a text is not UTF-8.
func encode(op *pb.Op, c *opConstraints, caps []string) (*content, error) {
	dt, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	if err != nil {
		if len(c.locations) > 0 {
			l := c.locations[0]
			err = &PlaceError{Info: l.source.info, Ranges: l.ranges, Err: err}
		}
		return nil, err
	}
	md := c.metadata()
	if md.Caps == nil {
		md.Caps = make(map[string]bool, len(caps))
	}
	for _, id := range caps {
		md.Caps[id] = true
	}
	return &content{bytes: dt, metadata: md, locations: c.locations}, nil
}

// Marshal writes down the graph that yields s: ops with dependencies first, each once, and last
// an entry that names the result. The definition of an empty tree is empty. An error of an op of which
// is known where it was written is a *PlaceError.
func (s State) Marshal(ctx context.Context, opts ...MarshalOption) (*pb.Definition, error) {
	return newResolver(opts).marshal(ctx, s)
}

func (r *resolver) marshal(ctx context.Context, s State) (*pb.Definition, error) {
	s, err := r.resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	if s.edge.vertex == nil {
		return &pb.Definition{}, nil
	}
	w := &writer{
		def:     &pb.Definition{Metadata: map[string]*pb.OpMetadata{}},
		sources: newSourceCollector(),
		done:    map[vertex]digest.Digest{},
	}
	if err := w.walk(ctx, r, s.edge.vertex); err != nil {
		return nil, err
	}
	if err := w.finish(s.edge); err != nil {
		return nil, err
	}
	w.def.Source, err = w.sources.marshal(ctx, r)
	return w.def, err
}

type writer struct {
	def     *pb.Definition
	sources *sourceCollector
	done    map[vertex]digest.Digest
}

// walk writes root and all that it depends on, depth first.
func (w *writer) walk(ctx context.Context, r *resolver, root vertex) error {
	type visit struct {
		vertex vertex
		plan   *plan
		next   int
	}
	stack := []visit{{vertex: root}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.plan == nil {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			var err error
			if top.plan, err = top.vertex.plan(ctx, r); err != nil {
				return err
			}
		}
		for top.next < len(top.plan.inputs) {
			if _, ok := w.done[top.plan.inputs[top.next].vertex]; !ok {
				break
			}
			top.next++
		}
		if top.next < len(top.plan.inputs) {
			stack = append(stack, visit{vertex: top.plan.inputs[top.next].vertex})
			continue
		}
		if err := w.write(top.vertex, top.plan); err != nil {
			return err
		}
		stack = stack[:len(stack)-1]
	}
	return nil
}

func (w *writer) write(v vertex, p *plan) error {
	if _, ok := w.done[v]; ok {
		return nil
	}
	in := make([]*pb.Input, len(p.inputs))
	for i, e := range p.inputs {
		in[i] = &pb.Input{Digest: string(w.done[e.vertex]), Index: e.index}
	}
	c, err := p.build(in)
	if err != nil {
		return err
	}
	dgst := digest.FromBytes(c.bytes)
	w.done[v] = dgst
	if prev, ok := w.def.Metadata[string(dgst)]; ok {
		mergeMetadata(prev, c.metadata)
	} else {
		w.def.Def = append(w.def.Def, c.bytes)
		w.def.Metadata[string(dgst)] = c.metadata
	}
	w.sources.add(dgst, c.locations)
	return nil
}

// finish writes the entry that names the result. It also carries the capabilities that reading
// the metadata takes.
func (w *writer) finish(result edge) error {
	op := &pb.Op{Inputs: []*pb.Input{{Digest: string(w.done[result.vertex]), Index: result.index}}}
	dt, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	if err != nil {
		return err
	}
	caps := map[string]bool{pb.CapConstraints: true, pb.CapPlatform: true}
	for _, m := range w.def.Metadata {
		if m.IgnoreCache {
			caps[pb.CapMetaIgnoreCache] = true
		}
		if len(m.Description) > 0 {
			caps[pb.CapMetaDescription] = true
		}
		if m.ExportCache != nil {
			caps[pb.CapMetaExportCache] = true
		}
	}
	w.def.Def = append(w.def.Def, dt)
	w.def.Metadata[digest.FromBytes(dt).String()] = &pb.OpMetadata{Caps: caps}
	return nil
}

// mergeMetadata adds to m what another op with the same bytes was told.
func mergeMetadata(m, other *pb.OpMetadata) {
	m.IgnoreCache = m.IgnoreCache || other.IgnoreCache
	for k, v := range other.Description {
		if m.Description == nil {
			m.Description = map[string]string{}
		}
		m.Description[k] = v
	}
	for k, v := range other.Caps {
		if m.Caps == nil {
			m.Caps = map[string]bool{}
		}
		m.Caps[k] = m.Caps[k] || v
	}
	if other.ExportCache != nil {
		m.ExportCache = other.ExportCache
	}
	if other.ProgressGroup != nil {
		m.ProgressGroup = other.ProgressGroup
	}
	if other.LinuxResources != nil {
		m.LinuxResources = other.LinuxResources
	}
}

// inputSet numbers the distinct inputs of an op.
type inputSet struct {
	list  []*pb.Input
	index map[string]int64
}

func (s *inputSet) add(in *pb.Input) int64 {
	key := fmt.Sprintf("%s %d", in.Digest, in.Index)
	if i, ok := s.index[key]; ok {
		return i
	}
	if s.index == nil {
		s.index = map[string]int64{}
	}
	i := int64(len(s.list))
	s.list = append(s.list, in)
	s.index[key] = i
	return i
}
