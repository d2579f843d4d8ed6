package graph

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// replaceSource puts the source into the op that Opt.Source names for it.
func (l *loader) replaceSource(p *parsedOp, platform ocispec.Platform) error {
	src := p.op.GetSource()
	if src == nil || l.opt.Source == nil {
		return nil
	}
	out, err := l.opt.Source(src, platform)
	if err != nil {
		return err
	}
	if out != src {
		p.op.Op = &pb.Op_Source{Source: out}
		p.replaced = true
	}
	return nil
}

// rename gives v, the vertex of p, a new digest if its source was replaced, or that of a vertex that it
// descends from: it is no more what its digest said. Two vertices of a graph may become the same.
func (p *parsedOp) rename(v *Vertex) error {
	changed := p.replaced
	for i, in := range p.op.Inputs {
		if dgst := string(v.Inputs[i].Vertex.Digest); in.Digest != dgst {
			in.Digest = dgst
			changed = true
		}
	}
	if !changed {
		return nil
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.op)
	if err != nil {
		return fmt.Errorf("encode op %s: %w", p.dgst, err)
	}
	v.Digest = digest.FromBytes(raw)
	return nil
}
