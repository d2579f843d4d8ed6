package graph

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"
)

// rename gives v, the vertex of p, a new digest if its op was amended, or that of a vertex that it
// descends from: it is no more what its digest said. Two vertices of a graph may become the same.
func (p *parsedOp) rename(v *Vertex) error {
	changed := p.amended
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
