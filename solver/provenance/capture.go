package provenance

import (
	"maps"
	"slices"

	pb "github.com/openbuildkit/buildkit/api/llb"
	"github.com/openbuildkit/buildkit/worker/source"
)

// Request is what a frontend was asked for.
type Request struct {
	Frontend string
	Options  map[string]string
	// Inputs are the requests that made what the frontend was given, by name.
	Inputs map[string]*Request
	// Root is what the build was asked for as a whole; nil if that is this request.
	Root *Request
	// Compatibility is the version of behaviour; 0 is not told.
	Compatibility int
}

// Capture is what one part of a result was made of. The zero value is that of nothing.
type Capture struct {
	Request Request

	materials []source.Material
	secrets   map[string]bool // true if optional
	ssh       map[string]bool
	network   bool
	opaque    bool
}

// Source adds a source that was used.
func (c *Capture) Source(m source.Material) {
	c.materials = append(c.materials, m)
	for _, id := range m.Secrets {
		c.secret(id, true)
	}
	for _, id := range m.SSH {
		c.agent(id, true)
	}
}

// Op adds what an op other than a source may have used.
func (c *Capture) Op(op *pb.Op) {
	switch op := op.GetOp().(type) {
	case *pb.Op_Build:
		c.opaque = true
	case *pb.Op_Exec:
		if op.Exec.GetNetwork() != pb.NetMode_NONE {
			c.network = true
		}
		for _, m := range op.Exec.GetMounts() {
			if s := m.GetSecretOpt(); s != nil && m.GetMountType() == pb.MountType_SECRET {
				c.secret(s.GetID(), s.GetOptional())
			}
			if s := m.GetSSHOpt(); s != nil && m.GetMountType() == pb.MountType_SSH {
				c.agent(s.GetID(), s.GetOptional())
			}
		}
		for _, s := range op.Exec.GetSecretenv() {
			c.secret(s.GetID(), s.GetOptional())
		}
	}
}

// What one step needs is not optional, whatever others say.
func (c *Capture) secret(id string, optional bool) { c.secrets = need(c.secrets, id, optional) }
func (c *Capture) agent(id string, optional bool)  { c.ssh = need(c.ssh, id, optional) }

func need(ids map[string]bool, id string, optional bool) map[string]bool {
	if ids == nil {
		ids = map[string]bool{}
	}
	if known, ok := ids[id]; ok {
		optional = optional && known
	}
	ids[id] = optional
	return ids
}

// Incomplete is a material that is not known for certain.
type Incomplete struct {
	// Op and Name say what it is, Reason why it is not known.
	Op, Name, Reason string
}

// Incomplete returns what keeps the list of materials from being complete.
func (c *Capture) Incomplete() []Incomplete {
	var all []Incomplete
	for _, name := range c.locals() {
		all = append(all, Incomplete{Op: "local", Name: name, Reason: "local_source"})
	}
	if c.opaque {
		all = append(all, Incomplete{Op: "build", Reason: "nested_build"})
	}
	return all
}

// locals returns the names of the client's folders that were used.
func (c *Capture) locals() []string {
	names := map[string]bool{}
	for _, m := range c.materials {
		if m.Kind == source.MaterialLocal {
			names[m.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
