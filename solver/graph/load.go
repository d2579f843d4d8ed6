package graph

import (
	"errors"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/compat"
	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Opt changes how a definition is loaded.
type Opt struct {
	// Platform is that of ops which name none.
	Platform ocispec.Platform
	// Capabilities refuses the id of a capability that an op asks for, by returning an error.
	Capabilities func(id string) error
	// Amend, if set, may change what an op does, or refuse it. It tells whether it has changed it.
	Amend func(op *pb.Op, platform ocispec.Platform) (changed bool, err error)
	// Policies names the source policies that Amend applies, for the definitions of build ops.
	Policies string
	// Compat is the version of behaviour that is asked for; 0 is the current one.
	Compat compat.Version
}

// Load checks def and returns its graph. Errors are the fault of whoever made the definition.
func Load(def *pb.Definition, opt Opt) (*Graph, error) {
	if len(def.GetDef()) == 0 {
		return nil, errors.New("invalid empty definition")
	}
	l := &loader{opt: opt, def: def, index: make(map[digest.Digest]int, len(def.Def))}
	if err := l.parse(); err != nil {
		return nil, err
	}
	root, err := l.terminal()
	if err != nil {
		return nil, err
	}
	if err := l.link(root.digest); err != nil {
		return nil, err
	}
	built, err := l.definition()
	if err != nil {
		return nil, err
	}
	return &Graph{Vertices: l.order, Root: Edge{Vertex: l.parsed[l.index[root.digest]].vertex, Output: root.output}, Definition: built}, nil
}

type loader struct {
	opt    Opt
	def    *pb.Definition
	parsed []parsedOp
	index  map[digest.Digest]int
	order  []*Vertex
}

type parsedOp struct {
	op    *pb.Op
	dgst  digest.Digest
	state visit
	// amended is set if the op is not what the definition says.
	amended bool
	vertex  *Vertex
	// raw is the op where its vertex has another digest.
	raw []byte
}

type visit uint8

const (
	unvisited visit = iota
	entered
	linked
)

type inputRef struct {
	digest digest.Digest
	output int
}

func (l *loader) parse() error {
	l.parsed = make([]parsedOp, len(l.def.Def))
	for i, raw := range l.def.Def {
		op := &pb.Op{}
		if err := proto.Unmarshal(raw, op); err != nil {
			return fmt.Errorf("failed to parse llb proto op: %w", err)
		}
		dgst := digest.FromBytes(raw)
		l.parsed[i] = parsedOp{op: op, dgst: dgst}
		l.index[dgst] = i
	}
	return nil
}

// terminal returns the input of the last op, which stands for the wanted result.
func (l *loader) terminal() (inputRef, error) {
	if len(l.parsed) < 2 {
		return inputRef{}, fmt.Errorf("invalid LLB with %d vertexes", len(l.parsed))
	}
	last := l.parsed[len(l.parsed)-1].op
	if len(last.Inputs) == 0 {
		return inputRef{}, errors.New("invalid LLB with no inputs on last vertex")
	}
	return l.input(0, last.Inputs[0])
}

func (l *loader) input(n int, in *pb.Input) (inputRef, error) {
	if in == nil {
		return inputRef{}, fmt.Errorf("invalid nil input %d", n)
	}
	if in.Index < 0 || in.Index > maxOutput {
		return inputRef{}, fmt.Errorf("invalid input %d output index %d", n, in.Index)
	}
	dgst := digest.Digest(in.Digest)
	if _, ok := l.index[dgst]; !ok {
		return inputRef{}, fmt.Errorf("invalid missing input digest %s", in.Digest)
	}
	return inputRef{digest: dgst, output: int(in.Index)}, nil
}

// maxOutput bounds output indexes, which index slices: no op has more outputs than a message
// of the largest size has room to name.
const maxOutput = 1 << 20

// link makes the vertices that root needs, inputs first. It walks with a stack of its own: a
// chain of many thousand ops is legal. Ops are named by their digest, so a cycle can't be built
// without breaking sha256; the check is there for the day that it is.
func (l *loader) link(root digest.Digest) error {
	stack := []int{l.index[root]}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		p := &l.parsed[i]
		switch p.state {
		case linked:
			stack = stack[:len(stack)-1]
			continue
		case unvisited:
			p.state = entered
			for n, in := range p.op.Inputs {
				ref, err := l.input(n, in)
				if err != nil {
					return err
				}
				child := l.index[ref.digest]
				switch l.parsed[child].state {
				case unvisited:
					stack = append(stack, child)
				case entered:
					return fmt.Errorf("invalid cycle at %s", ref.digest)
				}
			}
		case entered:
			v, err := l.vertex(p)
			if err != nil {
				return err
			}
			if err := p.rename(v); err != nil {
				return err
			}
			p.vertex, p.state = v, linked
			l.order = append(l.order, v)
			stack = stack[:len(stack)-1]
		}
	}
	return nil
}

func (l *loader) vertex(p *parsedOp) (*Vertex, error) {
	if err := validate(p.op); err != nil {
		return nil, err
	}
	meta := l.def.Metadata[string(p.dgst)]
	for id, needed := range meta.GetCaps() {
		if needed && l.opt.Capabilities != nil {
			if err := l.opt.Capabilities(id); err != nil {
				return nil, err
			}
		}
	}
	v := &Vertex{
		Digest:        p.dgst,
		Op:            p.op,
		IgnoreCache:   meta.GetIgnoreCache(),
		ProgressGroup: meta.GetProgressGroup(),
		Resources:     meta.GetLinuxResources(),
		Description:   meta.GetDescription(),
		Sources:       l.sources(p.dgst),
	}
	v.Platform = l.platform(p.op)
	if l.opt.Amend != nil {
		var err error
		if p.amended, err = l.opt.Amend(p.op, v.Platform); err != nil {
			return nil, err
		}
	}
	for n, in := range p.op.Inputs {
		ref, err := l.input(n, in)
		if err != nil {
			return nil, err
		}
		e := Edge{Vertex: l.parsed[l.index[ref.digest]].vertex, Output: ref.output}
		v.Inputs = append(v.Inputs, e)
		v.Sharing = max(v.Sharing, e.Vertex.Sharing)
	}
	if s := p.op.GetSource(); s != nil {
		if isUnpinnedLocal(s) {
			v.Sharing = max(v.Sharing, ShareSession)
		}
		if hasChanged(s, l.opt.Compat) {
			v.Compat = l.opt.Compat
		}
	}
	if p.op.GetBuild() != nil {
		v.Sharing, v.Policies = ShareNone, l.opt.Policies
	}
	v.Name = meta.GetDescription()[pb.DescriptionName]
	if v.Name == "" {
		v.Name = defaultName(p.op, v.Inputs)
	}
	v.Name = giturl.Redact(v.Name)
	return v, nil
}

func (l *loader) platform(op *pb.Op) ocispec.Platform {
	p := l.opt.Platform
	if op.Platform != nil {
		p = ocispec.Platform{
			OS:           op.Platform.OS,
			Architecture: op.Platform.Architecture,
			Variant:      op.Platform.Variant,
			OSVersion:    op.Platform.OSVersion,
			OSFeatures:   op.Platform.OSFeatures,
		}
	}
	p = platforms.Normalize(p)
	op.Platform = &pb.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
	return p
}

func (l *loader) sources(dgst digest.Digest) []Source {
	src := l.def.Source
	var out []Source
	for _, loc := range src.GetLocations()[string(dgst)].GetLocations() {
		if loc == nil || loc.SourceIndex < 0 || int(loc.SourceIndex) >= len(src.Infos) {
			continue
		}
		out = append(out, Source{Info: src.Infos[loc.SourceIndex], Ranges: loc.Ranges})
	}
	return out
}
