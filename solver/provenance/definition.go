package provenance

import (
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/openbuildkit/buildkit/api/giturl"
	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/api/redact"
	"github.com/openbuildkit/buildkit/worker/usage"
)

// buildConfig is a graph. Its steps stand in an order in which inputs come before those who use
// them.
type buildConfig struct {
	Steps []step `json:"llbDefinition,omitempty"`
	// Digests tells which step a vertex is.
	Digests map[digest.Digest]string `json:"digestMapping,omitempty"`

	// vertices are those of Steps.
	vertices []digest.Digest
}

type step struct {
	ID     string   `json:"id,omitempty"`
	Op     *pb.Op   `json:"op,omitempty"`
	Inputs []string `json:"inputs,omitempty"`
	// Usage is not told of steps that were found in the cache.
	Usage *usage.Samples `json:"resourceUsage,omitempty"`
}

// newBuildConfig returns the graph of a definition; nil for none.
func newBuildConfig(def *pb.Definition) (*buildConfig, error) {
	if len(def.GetDef()) == 0 {
		return nil, nil
	}
	ops := make(map[digest.Digest]*pb.Op, len(def.GetDef()))
	var root digest.Digest
	for _, data := range def.GetDef() {
		op := &pb.Op{}
		if err := proto.Unmarshal(data, op); err != nil {
			return nil, fmt.Errorf("definition: %w", err)
		}
		root = digest.FromBytes(data)
		ops[root] = op
	}
	c := &buildConfig{Digests: make(map[digest.Digest]string, len(ops)), vertices: inputsFirst(root, ops)}
	for _, dgst := range c.vertices {
		op := ops[dgst]
		s := step{ID: "step" + strconv.Itoa(len(c.Steps)), Op: shown(op)}
		for _, in := range op.GetInputs() {
			s.Inputs = append(s.Inputs, fmt.Sprintf("%s:%d", c.Digests[digest.Digest(in.GetDigest())], in.GetIndex()))
		}
		c.Digests[dgst] = s.ID
		c.Steps = append(c.Steps, s)
	}
	return c, nil
}

// addUsage adds what steps have taken.
func (c *buildConfig) addUsage(samples map[digest.Digest]*usage.Samples) {
	if c == nil {
		return
	}
	byID := map[string]*usage.Samples{}
	for dgst, s := range samples {
		byID[c.Digests[dgst]] = s
	}
	for i := range c.Steps {
		c.Steps[i].Usage = byID[c.Steps[i].ID]
	}
}

// inputsFirst returns what root needs, inputs before those who use them.
func inputsFirst(root digest.Digest, ops map[digest.Digest]*pb.Op) []digest.Digest {
	type visit struct {
		dgst digest.Digest
		next int
	}
	var order []digest.Digest
	seen := map[digest.Digest]bool{root: true}
	stack := []visit{{root, 0}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		inputs := ops[top.dgst].GetInputs()
		if top.next == len(inputs) {
			order = append(order, top.dgst)
			stack = stack[:len(stack)-1]
			continue
		}
		in := digest.Digest(inputs[top.next].GetDigest())
		top.next++
		if !seen[in] && ops[in] != nil {
			seen[in] = true
			stack = append(stack, visit{in, 0})
		}
	}
	return order
}

// shown returns an op as it is told: without its inputs, which the step has, without what belongs to
// one session, and without credentials.
func shown(op *pb.Op) *pb.Op {
	op = redact.Op(op)
	op.Inputs = nil
	if op.Constraints == nil && op.Op != nil {
		op.Constraints = &pb.WorkerConstraints{}
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		for _, k := range []string{pb.AttrLocalSession, pb.AttrLocalUnique, pb.AttrOCISession} {
			delete(o.Source.Attrs, k)
		}
	case *pb.Op_Exec:
		if meta := o.Exec.GetMeta(); meta != nil {
			meta.ProxyEnv = nil
		}
	}
	return op
}

// sources says where in the user's files steps stand.
type sources struct {
	Locations map[string]*pb.Locations `json:"locations,omitempty"`
	Infos     []sourceInfo             `json:"infos,omitempty"`
}

type sourceInfo struct {
	Filename string `json:"filename,omitempty"`
	Language string `json:"language,omitempty"`
	Data     []byte `json:"data,omitempty"`
	*buildConfig
}

// newSources returns the source maps of a definition whose graph is config; nil for none.
func newSources(def *pb.Definition, config *buildConfig) (*sources, error) {
	if def.GetSource() == nil || config == nil {
		return nil, nil
	}
	s := &sources{Locations: map[string]*pb.Locations{}}
	for dgst, loc := range def.GetSource().GetLocations() {
		if id, ok := config.Digests[digest.Digest(dgst)]; ok {
			s.Locations[id] = loc
		}
	}
	for _, info := range def.GetSource().GetInfos() {
		own, err := newBuildConfig(info.GetDefinition())
		if err != nil {
			return nil, err
		}
		data := []byte(giturl.Redact(string(info.GetData())))
		s.Infos = append(s.Infos, sourceInfo{info.GetFilename(), info.GetLanguage(), data, own})
	}
	return s, nil
}
