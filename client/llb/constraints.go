package llb

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	pb "github.com/openbuildkit/buildkit/api/llb"
)

// Constraints are what Marshal was told for the whole graph.
type Constraints struct {
	// Platform is that of ops which do not say; nil is the platform of this machine.
	Platform *ocispec.Platform
	// WorkerFilters are added to those of every op.
	WorkerFilters []string
	// LocalUniqueID is put on local sources that name neither a session nor an id.
	LocalUniqueID string
}

// MarshalOption applies to all ops of a graph.
type MarshalOption interface {
	applyMarshal(*Constraints)
}

// ConstraintsOpt applies to one op of any kind.
type ConstraintsOpt interface {
	RunOption
	ImageOption
	OCILayoutOption
	BlobOption
	LocalOption
	GitOption
	HTTPOption
	applyConstraints(*opConstraints)
}

// GraphOption applies to one op or, given to Marshal, to those that do not say otherwise.
type GraphOption interface {
	ConstraintsOpt
	MarshalOption
}

// opConstraints are what one op was told.
type opConstraints struct {
	platform      *ocispec.Platform
	workerFilters []string
	ignoreCache   bool
	description   map[string]string
	exportCache   *bool
	progressGroup *pb.ProgressGroup
	resources     *pb.LinuxResources
	locations     []*sourceLocation
}

func newOpConstraints(opts []ConstraintsOpt) (c opConstraints) {
	for _, o := range opts {
		o.applyConstraints(&c)
	}
	return c
}

// metadata returns a fresh message.
func (c *opConstraints) metadata() *pb.OpMetadata {
	m := &pb.OpMetadata{
		IgnoreCache:    c.ignoreCache,
		Description:    maps.Clone(c.description),
		ProgressGroup:  c.progressGroup,
		LinuxResources: c.resources,
	}
	if c.exportCache != nil {
		m.ExportCache = &pb.ExportCache{Value: *c.exportCache}
	}
	if c.resources != nil {
		m.Caps = map[string]bool{pb.CapExecMetaLinuxResources: true}
	}
	return m
}

type constraintsOpt func(*opConstraints)

func (o constraintsOpt) applyConstraints(c *opConstraints) { o(c) }
func (o constraintsOpt) applyRun(r *runInfo)               { o(&r.constraints) }
func (o constraintsOpt) applyImage(s *imageInfo)           { o(&s.constraints) }
func (o constraintsOpt) applyOCILayout(s *ociLayoutInfo)   { o(&s.constraints) }
func (o constraintsOpt) applyBlob(s *sourceInfo)           { o(&s.constraints) }
func (o constraintsOpt) applyLocal(s *sourceInfo)          { o(&s.constraints) }
func (o constraintsOpt) applyGit(s *gitInfo)               { o(&s.constraints) }
func (o constraintsOpt) applyHTTP(s *sourceInfo)           { o(&s.constraints) }

type graphOpt struct {
	constraintsOpt
	marshal func(*Constraints)
}

func (o graphOpt) applyMarshal(c *Constraints) { o.marshal(c) }

// Platform sets the platform of ops.
func Platform(p ocispec.Platform) GraphOption {
	return graphOpt{
		func(c *opConstraints) { c.platform = &p },
		func(c *Constraints) { c.Platform = &p },
	}
}

// WorkerFilter adds a filter expression that a worker must meet. It is written down for daemons that
// choose between workers; those with one, as all of this project, do not read it.
func WorkerFilter(filters ...string) GraphOption {
	return graphOpt{
		func(c *opConstraints) { c.workerFilters = appendCopy(c.workerFilters, filters...) },
		func(c *Constraints) { c.WorkerFilters = appendCopy(c.WorkerFilters, filters...) },
	}
}

type marshalOpt func(*Constraints)

func (o marshalOpt) applyMarshal(c *Constraints) { o(c) }

// LocalUniqueID tells local sources of this graph from equal ones of other graphs, unless they
// name a session.
func LocalUniqueID(id string) MarshalOption {
	return marshalOpt(func(c *Constraints) { c.LocalUniqueID = id })
}

// IgnoreCache makes the op run even if a result is cached.
func IgnoreCache() ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) { c.ignoreCache = true })
}

// Description adds free texts about the op. They do not change its identity.
func Description(d map[string]string) ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) {
		c.description = maps.Clone(c.description)
		if c.description == nil {
			c.description = make(map[string]string, len(d))
		}
		maps.Copy(c.description, d)
	})
}

// CustomName sets the name that progress shows for the op.
func CustomName(name string) ConstraintsOpt {
	return Description(map[string]string{pb.DescriptionName: name})
}

// CustomNamef sets the name that progress shows to a formatted text.
func CustomNamef(format string, args ...any) ConstraintsOpt {
	return CustomName(fmt.Sprintf(format, args...))
}

// ExportCache says whether cache exports contain the result of the op; unset, they decide.
func ExportCache(export bool) ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) { c.exportCache = &export })
}

// ProgressGroup shows ops of one id as one. A group of only weak ops is shown only on errors.
func ProgressGroup(id, name string, weak bool) ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) {
		c.progressGroup = &pb.ProgressGroup{Id: id, Name: name, Weak: weak}
	})
}

// LinuxResources bounds what a process may use. It does not change the identity of the op.
func LinuxResources(limits *pb.LinuxResources) ConstraintsOpt {
	return constraintsOpt(func(c *opConstraints) { c.resources = limits })
}

// opPlatform returns the first platform that is given: by the op, by its State, for the graph,
// of this machine.
func (r *resolver) opPlatform(candidates ...*ocispec.Platform) *pb.Platform {
	for _, p := range append(candidates, r.constraints.Platform) {
		if p != nil {
			return pb.FromSpec(platforms.Normalize(*p))
		}
	}
	p := platforms.DefaultSpec()
	if p.OS == "darwin" {
		// There are no containers of this kind: the daemon of such a machine is in a Linux one.
		p.OS, p.OSVersion = "linux", ""
	}
	return pb.FromSpec(platforms.Normalize(p))
}

func (r *resolver) workerConstraints(c *opConstraints) *pb.WorkerConstraints {
	return &pb.WorkerConstraints{Filter: slices.Concat(r.constraints.WorkerFilters, c.workerFilters)}
}
