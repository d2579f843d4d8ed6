package graph

import (
	"fmt"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	pb "github.com/openbuildkit/buildkit/api/llb"
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
	v.Digest, p.raw = digest.FromBytes(raw), raw
	return nil
}

// definition returns the definition of what was linked, which is the one that was loaded if no vertex has
// another digest.
func (l *loader) definition() (*pb.Definition, error) {
	renamed := map[string]string{}
	for i := range l.parsed {
		if p := &l.parsed[i]; p.raw != nil {
			renamed[string(p.dgst)] = string(p.vertex.Digest)
		}
	}
	if len(renamed) == 0 {
		return l.def, nil
	}
	def := &pb.Definition{Metadata: underNew(l.def.GetMetadata(), renamed)}
	if src := l.def.GetSource(); src != nil {
		def.Source = &pb.Source{Infos: src.GetInfos(), Locations: underNew(src.GetLocations(), renamed)}
	}
	last := len(l.parsed) - 1
	for i := range l.parsed[:last] {
		raw := l.parsed[i].raw
		if raw == nil {
			raw = l.def.GetDef()[i]
		}
		def.Def = append(def.Def, raw)
	}
	terminal := proto.CloneOf(l.parsed[last].op)
	for _, in := range terminal.GetInputs() {
		if dgst, ok := renamed[in.GetDigest()]; ok {
			in.Digest = dgst
		}
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(terminal)
	if err != nil {
		return nil, fmt.Errorf("encode op %s: %w", l.parsed[last].dgst, err)
	}
	def.Def = append(def.Def, raw)
	return def, nil
}

// underNew returns a map by digests with those that are others now.
func underNew[V any](m map[string]V, renamed map[string]string) map[string]V {
	out := make(map[string]V, len(m))
	for dgst, v := range m {
		if now, ok := renamed[dgst]; ok {
			dgst = now
		}
		out[dgst] = v
	}
	return out
}
